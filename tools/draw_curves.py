"""Draw the curves of one or several training runs: validation PSNR and training loss against steps.

python tools/draw_curves.py runs/one runs/other --out curves.png
python tools/draw_curves.py "guide 1"=runs/one "guide 4"=runs/other --out curves.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from curves import Curves, draw_curves, read_curves
from invertible_rescaling import RescalingError


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; return 0, or 2 after an error."""
    parser = argparse.ArgumentParser(
        prog="draw_curves.py", description="Draw validation PSNR and training loss of runs against steps."
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="a run's folder, or its log.jsonl")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), metavar="FILE")
    options = parser.parse_args(argv)
    try:
        draw_curves([named(run) for run in options.runs], options.out)
    except (RescalingError, OSError) as error:
        print(f"draw_curves.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}")
    return 0


def named(text: str) -> Curves:
    """Read ``RUN`` or ``NAME=RUN``; a path that exists is a path, whatever is in it."""
    name, equals, path = text.partition("=")
    if equals and name and not Path(text).exists():
        return read_curves(Path(path), name)
    return read_curves(Path(text))


if __name__ == "__main__":
    sys.exit(main())
