"""The command ``invertible-rescaling``: pictures at the shell; needs the extra ``[cli]``."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 all done, 1 some failed, 2 usage, 130 interrupted.

    Args:
        argv: the arguments after the program's name; those of the process by default.

    Example:
        >>> from invertible_rescaling.cli import main
        >>> main(["downscale"])
        2
    """
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(  # noqa: T201
            f"error: the command line needs {error.name}: pip install 'invertible_rescaling[cli]'",
            file=sys.stderr,
        )
        return 2
    from invertible_rescaling.cli.entry import run

    return run(argv)
