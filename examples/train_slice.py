r"""Train one slice of a run that is cut up, possibly over several machines.

    python examples/train_slice.py --to slices/1 -- --data DIR --val DIR --model iirn_x4
    python examples/train_slice.py --from slices/1 --to slices/2 -- --data DIR --val DIR --model iirn_x4

What comes after ``--`` is for train_div2k.py, the same for every slice. A slice leaves in --to what the next
one needs, and the curves so far: ``best.safetensors``, ``last.safetensors``, ``state/`` in files below 16 MB,
``log.jsonl`` and ``curve.png``, eight files for iirn_x4. The folder is a run's as well, which train_div2k.py
goes on with if it is given as --out.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import train_div2k
from invertible_rescaling import RescalingError
from invertible_rescaling.checkpoint import verify_checkpoint
from training.clock import STARTED  # of train_div2k, whose first import it is
from training.curves import draw_curves, read_curves
from training.options import Options, duration, parse_options
from training.state import load_newest_state, states

LARGEST_MB, MOST_FILES = 16.0, 8
CHOSEN_HERE = ("--out", "--time-limit", "--resume", "--demo")
WEIGHTS = ("best.safetensors", "last.safetensors")
PARTIAL = ".restoring"  # a copy that is being made, within --to


class SliceError(RescalingError):
    """A slice cannot be begun as it was asked for."""


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """Run a slice, whose time counts from ``started``, by default from now.

    Returns train_div2k.py's exit code, or 2 if the slice could not be begun.
    """
    options = parse(argv)
    made = False
    try:
        check(options)
        made = not options.to.exists()
        begun = restore(options.source, options.to) if options.source is not None else 0
    except (RescalingError, OSError) as error:
        print(f"train_slice.py: {error}", file=sys.stderr)
        return 2
    limit = ["--time-limit", f"{options.time_limit:f}", "--out", str(options.to)]
    code = 1
    try:
        code = train_div2k.main([*options.training, *limit], started)
    finally:
        if code and newest_step(options.to) <= begun:
            empty(options.to, remove=made)
    if code == 0:
        tidy(options.to)
    return code


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is written.

    Raises:
        SliceError: --to cannot be used, or an option is none of a slice.
        OptionError: the options of training do not fit together.
    """
    training, plain = parse_options(options.training), Options()
    fields = {name: name.removeprefix("--").replace("-", "_") for name in CHOSEN_HERE}
    taken = [name for name, field in fields.items() if getattr(training, field) != getattr(plain, field)]
    if taken:
        raise SliceError(f"{', '.join(taken)} after --: a slice decides that itself; leave it out")
    if options.to is None:
        raise SliceError("give --to DIR, where the slice is to leave what the next one needs")
    if options.to.is_dir() and any(path.name != PARTIAL for path in options.to.iterdir()):
        raise SliceError(f"{str(options.to)!r} is not empty; give each slice a folder of its own")
    training.check()


def restore(source: Path, to: Path) -> int:
    """Copy a slice after checking that it is whole, and return how many steps it has made.

    What is read-only there is writable here. The copy is made beside, within --to, and moved in place when
    it is whole, so that a disk that fills up leaves --to as it was.

    Raises:
        SliceError: a file is missing or damaged.
        OSError: --to cannot be written.
    """
    if not source.is_dir():
        raise SliceError(f"there is no slice at {str(source)!r}; leave --from out to begin a run")
    problems: list[str] = []
    try:
        found = load_newest_state(source / "state", problems.append)
    except RescalingError as error:
        raise SliceError(f"the slice in {str(source)!r} is not whole: {'; '.join(problems)}") from error
    if found is None:
        raise SliceError(f"the slice in {str(source)!r} is not whole: it has no state; fetch all its files")
    step, _, facts = found
    needed = (["log.jsonl"] if step else []) + (["best.safetensors"] if facts["best"] is not None else [])
    missing = [name for name in needed if not (source / name).is_file()]
    if missing or problems:
        what = "; ".join([*(f"{name} is missing" for name in missing), *problems])
        raise SliceError(f"the slice in {str(source)!r} is not whole: {what}; fetch all its files")
    for name in WEIGHTS:
        if (source / name).is_file():
            verify_checkpoint(source / name)
    files = [source / name for name in (*WEIGHTS, "log.jsonl") if (source / name).is_file()]
    partial, made = to / PARTIAL, not to.exists()
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for file in [*files, *(source / "state").glob("step-*/*")]:
            copy = partial / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == "state"):  # the state comes last
            path.rename(to / path.name)
        partial.rmdir()
    except BaseException:
        empty(to, remove=made)
        raise
    return step


def newest_step(folder: Path) -> int:
    """How many steps the newest state in a run's folder has made; 0 where there is none."""
    return max((step for step, _, _ in states(folder / "state")), default=0)


def empty(folder: Path, *, remove: bool) -> None:
    """Take away what a slice that came to nothing left; the folder as well, if it was not there before."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if remove:
        shutil.rmtree(folder, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Leave what the next slice needs, draw the curves, and say what is there."""
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    if not (folder / "state").is_dir():
        return
    for old in states(folder / "state")[:-1]:
        shutil.rmtree(old[2])
    try:
        draw_curves([read_curves(folder, name="this run")], folder / "curve.png")
    except (RescalingError, OSError) as error:
        print(f"no curves: {error}")
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = [path.stat().st_size / 1e6 for path in files]
    print(
        f"slice: {len(files)} files, {sum(sizes):.1f} MB, the largest {max(sizes):.1f} MB, "
        f"in {str(folder)!r}; --from {folder} goes on from there"
    )
    if len(files) > MOST_FILES or max(sizes) > LARGEST_MB:
        print(f"that is more than {MOST_FILES} files of {LARGEST_MB:g} MB: the model is large")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line: this program's options, then ``--``, then train_div2k.py's."""
    given = list(sys.argv[1:] if argv is None else argv)
    at = given.index("--") if "--" in given else len(given)
    out = os.environ.get("OUT")
    parser = argparse.ArgumentParser(
        prog="train_slice.py",
        usage="%(prog)s [--from DIR] [--to DIR] [--time-limit TIME] -- OPTIONS OF train_div2k.py",
        description="Train one slice of a run that is cut up, possibly over several machines.",
    )
    add = parser.add_argument
    add("--from", dest="source", type=Path, metavar="DIR", help="the slice before; none to begin a run")
    add(
        "--to",
        type=Path,
        default=Path(out) if out else None,
        metavar="DIR",
        help="default: $OUT, if it is set",
    )
    add("--time-limit", type=duration, default=540.0, metavar="TIME", help="of this slice (default: 9m)")
    options = parser.parse_args(given[:at])
    options.training = given[at + 1 :]
    return options


if __name__ == "__main__":
    sys.exit(main(started=STARTED))
