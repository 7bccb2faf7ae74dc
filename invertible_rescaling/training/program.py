"""The training program: ``invertible-rescaling train``, ``python -m invertible_rescaling.training``."""

import os
import sys
from collections.abc import Sequence

from invertible_rescaling.errors import RescalingError
from invertible_rescaling.training.arguments import parse_options
from invertible_rescaling.training.trainer import Prepare, Trainer


def main(
    argv: Sequence[str] | None = None,
    started: float | None = None,
    prepare: Prepare | None = None,
    prog: str | None = None,
) -> int:
    """Run the program; return its exit code: 0 for done or cleanly stopped, 2 for an error.

    Args:
        argv: the command line.
        started: ``time.monotonic()`` from which a time limit counts; that of the call by default.
        prepare: called with all that is trained with before the first step; the options that it returns are
            trained with.
        prog: the program's name in its help and messages.
    """
    config = parse_options(argv, prog)
    try:
        Trainer(config)._fit(started, prepare)
    except KeyboardInterrupt:
        print("interrupted before training began", file=sys.stderr)  # noqa: T201
        return 130
    except (RescalingError, OSError) as error:
        rank = os.environ.get("RANK", "0")
        who = "" if rank == "0" else f" (process {rank})"
        print(f"error{who}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0
