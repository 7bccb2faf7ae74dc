"""The way into the training program, which names a package that is missing in one line."""

import sys
from collections.abc import Sequence

from invertible_rescaling._process import STARTED

__all__: list[str] = []  # for what starts the program: the command line, ``-m`` and the example


def launch(prog: str, argv: Sequence[str] | None = None) -> int:
    """Run the training program on a command line, the process's own by default; return its exit code.

    A time limit counts from the first import of the package: a process may be older, as one that a shell has
    become.
    """
    try:
        from invertible_rescaling.training.program import main
    except ModuleNotFoundError as error:
        problem = f"training needs {error.name}: pip install 'invertible_rescaling[train]'"
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        return main(argv, started=STARTED, prog=prog)
    except SystemExit as end:  # of argparse, after its help and after a misuse
        return int(end.code or 0)
