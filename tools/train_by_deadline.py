r"""Make the most of a GPU that is there for minutes: check it, race a few settings, train until the deadline.

    python tools/train_by_deadline.py --deadline 9m --to lots/1 -- --data DIR --val DIR --model iirn_x4
    python tools/train_by_deadline.py --deadline 9m --to lots/2 -- --data DIR --val DIR --model iirn_x4 \
        --weights lots/1/last.safetensors --lr 1e-3
    python tools/train_by_deadline.py --deadline 2m --to /tmp/lot -- --data DIR --val-fraction 0.1 \
        --model iirn_x2 --blocks 1 --batch-size 2 --patch 32 --cpu          # the rehearsal

For spot machines and queues with short limits. What comes after ``--`` is for train_div2k.py. First gradients
are compared with float64's, and the step as one graph with the eager one; an error ends the program before
time is spent. Then the ways to run a step are timed, and the fastest trains as many steps as fit, with a
cosine of that length, and validates at the end. ``--to`` is left with ``best.safetensors``,
``last.safetensors``, ``log.jsonl`` and ``curve.png``, their size stated, and with ``--keep-state`` the state
of the run, so that ``train_div2k.py --out`` can go on with it.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from curves import draw_curves, read_curves
from invertible_rescaling import RescalingError
from invertible_rescaling._process import STARTED
from invertible_rescaling.models import AnyModel
from invertible_rescaling.training import PatchSampler, program
from invertible_rescaling.training.arguments import parse_options
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.flags import duration
from invertible_rescaling.training.rehearsal import check_gradients, check_graph, race

RESERVE = 10.0  # seconds: for what is left to do when the last weights are written
_CHOSEN = {"out": "--out", "steps": "--steps", "fit": "--fit", "time_limit": "--time-limit", "demo": "--demo"}


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """Run the program; return train_div2k.py's exit code, or 2 after an error of its own."""
    given = parse(argv)
    try:
        check(given)
    except (RescalingError, OSError) as error:
        print(f"train_by_deadline.py: {error}", file=sys.stderr)
        return 2

    def prepare(
        options: TrainingConfig,
        accelerator: Accelerator,
        model: AnyModel,
        sampler: PatchSampler,
        say: Callable[[str], None],
    ) -> TrainingConfig:
        check_gradients(model, options.precision, accelerator.device, say)
        check_graph(options, accelerator, model, sampler, say)
        return race(options, accelerator, model, sampler, say)

    seconds = given.deadline - RESERVE
    limits = ["--fit", f"{seconds:f}", "--time-limit", f"{seconds + RESERVE / 2:f}", "--out", str(given.to)]
    rare = ["--validate-every", "1000000000", "--save-every", "2000"]
    code = program.main([*rare, *given.training, *limits], started, prepare)
    if code == 0:
        tidy(given.to, keep_state=given.keep_state)
    return code


def check(given: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is written.

    Raises:
        OptionError: --to is in use, the deadline too near, or an option of training is decided here.
    """
    training, plain = parse_options(given.training), TrainingConfig()
    taken = [flag for name, flag in _CHOSEN.items() if getattr(training, name) != getattr(plain, name)]
    if taken:
        raise OptionError(f"{', '.join(taken)} after --: the deadline decides that; leave it out")
    if given.to.is_dir() and any(given.to.iterdir()):
        raise OptionError(f"--to {str(given.to)!r} is not empty; give every lot a folder of its own")
    if given.deadline < 3 * RESERVE:
        raise OptionError(f"--deadline must be at least {3 * RESERVE:g} s, got {given.deadline:g}")
    replace(training, out=given.to).check()


def tidy(folder: Path, *, keep_state: bool) -> None:
    """Leave weights, log and curve, and say how large they are."""
    for name in ("tensorboard", "start", *(() if keep_state else ("state",))):
        shutil.rmtree(folder / name, ignore_errors=True)
    try:
        draw_curves([read_curves(folder, name="this run")], folder / "curve.png")
    except (RescalingError, OSError, ImportError) as error:  # matplotlib may be missing
        print(f"no curves: {error}")
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"{len(files)} files, {size:.1f} MB, in {str(folder)!r}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line: this program's options, then ``--``, then train_div2k.py's."""
    given = list(sys.argv[1:] if argv is None else argv)
    at = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        prog="train_by_deadline.py",
        usage="%(prog)s --deadline TIME --to DIR [--keep-state] -- OPTIONS OF train_div2k.py",
        description="Check a machine, race a few settings and train on it until a deadline.",
    )
    add = parser.add_argument
    add("--deadline", type=duration, required=True, metavar="TIME", help="from the program's start: 9m")
    add("--to", type=Path, required=True, metavar="DIR", help="what is to be kept goes there")
    add("--keep-state", action="store_true", help="keep what train_div2k.py goes on from, too")
    options = parser.parse_args(given[:at])
    options.training = given[at + 1 :]
    return options


if __name__ == "__main__":
    sys.exit(main(started=STARTED))
