r"""Train the variants that a table compares, each with the same images, and keep what came of each.

    python tools/trials.py claims --data DIR --val DIR --to runs/claims --json docs/measured/claims.json
    python tools/trials.py table1 --data DIR --val DIR --to runs/table1 --precision bf16 \
        --benchmarks SETS/Set5 SETS/Set14 SETS/BSD100 --json docs/measured/table1.json

One variant is trained after another, on one CPU core; those that --to holds are passed over, and several
processes may share it, one a core. ``claims`` are short runs on what Mo & Chen say of IIRN and of its parts.
``table1`` gives every system of their Table 1, and the small models here, as many core minutes. How many
steps fill a time is counted from the core seconds that one takes, measured before in turns with one of IIRN,
so that other work on the machine favours none. --benchmarks measures weights, RUN/last.safetensors, on those
folders on which they are not measured yet.
--json gathers what is done, with a table of it beside, in a file of the same name that ends with .md; what it
holds from another machine is not done again.
"""

import argparse
import fcntl
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from comparing.benchmarks import finite, measure_benchmarks
from comparing.plans import PLANS, Trial
from comparing.tables import to_markdown
from complexity import count
from evaluate import at_least
from evaluation.words import one_line, write_json
from invertible_rescaling import RescalingError, create_model, load_checkpoint, save_checkpoint
from invertible_rescaling.evaluation import METRICS, bicubic_rescale, measure, model_rescale
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.models import AnyModel
from invertible_rescaling.training import Trainer, TrainingConfig
from invertible_rescaling.training.start import takes_linear
from invertible_rescaling.weights import read_metadata
from provenance import commit, machine

HR_SIZE = (40, 40)  # what the papers count multiply-adds on
NEVER = 1_000_000_000
FEW, MORE = 2, 10  # steps: what a run costs beside its steps; a turn of SOAP, with which it is timed at first
TIMED_SECONDS = 5.0  # that those take at least, so that what differs between two runs does not count
TURNS = 7  # in which a variant's steps and those of the one it is compared with are timed
KEPT = ("batch_size", "patch", "optimizer", "lr", "loss_weights", "precision", "start", "seed")


@dataclass(frozen=True)
class Bench:
    """What all trials of a plan share.

    Attributes:
        trials: the whole plan, in which a run may be told to take as long as another.
        train: images to train on, uint8 ``(3, H, W)``.
        val: images to measure on, likewise.
        to: the folder of what comes of them.
        known: results of runs that are not to be made again.
        minutes: the core minutes of those that fill a time.
        steps: at most so many, for a rehearsal; ``None`` for what the plan says.
        precision: of training, as :class:`~invertible_rescaling.training.TrainingConfig` takes it.
        benchmarks: folders of images to measure what is trained on.
    """

    trials: Sequence[Trial]
    train: Sequence[torch.Tensor]
    val: Sequence[torch.Tensor]
    to: Path
    known: Sequence[dict[str, Any]] = ()
    minutes: float = 20.0
    steps: int | None = None
    precision: str = "auto"
    benchmarks: Sequence[Path] = ()

    def run(self, wanted: Sequence[Trial]) -> None:
        """Train and measure what is neither done nor in work in another process."""
        elsewhere = {identity(result) for result in self.known}
        for trial in wanted:
            here = (self.to / trial.name / "result.json").is_file()
            if here or (trial.row, trial.scale, trial.seed) not in elsewhere:
                self._finish(trial, wait=False)

    def _finish(self, trial: Trial, *, wait: bool) -> None:
        folder = self.to / trial.name
        with alone(folder, wait=wait) as mine:
            file = folder / "result.json"
            if not mine:
                return
            if not file.is_file():
                for other in self.trials:
                    if other.name == trial.start:
                        self._finish(other, wait=True)
                result = self.train_one(trial)
                write_json(file, json.dumps(result, indent=2) + "\n")
                print(
                    f"{trial.name}: {result['val']['psnr_rgb']:.2f} dB, {result['steps']} steps, "
                    f"{result['core_minutes']:.1f} core minutes",
                    flush=True,
                )
            self.measure_more(file, trial.scale)

    def measure_more(self, file: Path, scale: int) -> None:
        """Measure the weights beside a result on the benchmarks that it does not tell of."""
        result = json.loads(file.read_text())
        known = result.get("benchmarks", {})
        if any(folder.name not in known for folder in self.benchmarks):
            model: Any = load_checkpoint(file.with_name("last.safetensors"), kind=nn.Module).eval()
            found = measure_benchmarks(model_rescale(model), scale, self.benchmarks, known)
            write_json(file, json.dumps(result | {"benchmarks": found}, indent=2) + "\n")

    def train_one(self, trial: Trial) -> dict[str, Any]:
        """Train a variant from its first step; return what is to be kept of it."""
        out = self.to / trial.name
        empty(out)
        config = self.configuration(trial, out, self.steps_of(trial))
        code = commit()  # now: the folder may have another at the end
        began = time.process_time()
        model = self.fit(config)
        seconds = time.process_time() - began
        left = read_metadata(out / "last.safetensors")["metadata"]
        save_checkpoint(model, out / "last.safetensors", metadata=left | {"runs": [run_of(left, seconds)]})
        found = [measure(model_rescale(model), from_uint8(hr[None]), trial.scale)[0] for hr in self.val]
        cost = count(model, HR_SIZE)
        return {
            "row": trial.row,
            "scale": trial.scale,
            "model": trial.options["model"],
            "steps": left["step"],
            **{name: left["options"][name] for name in KEPT},
            "core_minutes": round(seconds / 60, 2),
            "machine": machine("cpu"),
            "commit": code,
            "parameters": cost.parameters,
            "multiply_adds": cost.upscale,
            "val": {name: finite(fmean(each[name] for each in found)) for name in METRICS},
        }

    def fit(self, config: TrainingConfig) -> AnyModel:
        """Train; the images are measured afterwards, so that they take no time of it.

        Raises:
            KeyboardInterrupt: training took it for a wish to stop cleanly.
        """
        result = Trainer(config, self.train, (), log=quiet).fit()
        if result.model is None or not result.finished:
            raise KeyboardInterrupt
        return result.model

    def configuration(self, trial: Trial, out: Path, steps: int) -> TrainingConfig:
        """The options of a run."""
        options = {"save_every": NEVER, **trial.options, "steps": steps}
        if trial.start is not None:
            options["start"] = str(self.to / trial.start / "last.safetensors")
        options |= {"seed": trial.seed, "precision": self.precision}
        return TrainingConfig(**options, out=out, cpu=True, quiet=True)

    def steps_of(self, trial: Trial) -> int:
        """How many steps a variant makes."""
        steps: int = trial.options.get("steps", 0)
        if trial.as_long_as is not None:
            alike = (trial.as_long_as, trial.scale, trial.seed)
            (other,) = (t for t in self.trials if (t.row, t.scale, t.seed) == alike)
            steps = round(self.steps_of(other) * self.pace(other) / self.pace(trial))
        elif trial.fills:
            steps = int((60 * self.minutes - self.start_seconds(trial)) / self.pace(trial))
        if steps < 1:
            raise RescalingError(f"{trial.name}: no step fits into {self.minutes:g} minutes")
        return min(steps, self.steps or steps)

    def pace(self, trial: Trial) -> float:
        """Core seconds of a step, linear start aside, as the first that asked for it has measured them.

        Those of the reference, which most are compared with, are measured once; those of any other are the
        median of their ratios to it, in turns, times those. So a core that becomes slower or faster in
        between, as one does beside other work, gives no variant more steps than another.
        """
        with alone(self.to / "pace", wait=True):
            file = self.to / "pace" / f"x{trial.scale}.json"
            known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
            reference = self.reference(trial.scale)
            for one in (reference, trial):
                if one.row not in known:
                    known[one.row] = self._time(one, reference, known.get(reference.row))
                    write_json(file, json.dumps(known, indent=2) + "\n")
        return known[trial.row]

    def reference(self, scale: int) -> Trial:
        """The run that others are to take as long as, or else the first that fills a time."""
        named = {trial.as_long_as for trial in self.trials}
        return next(t for t in self.trials if t.scale == scale and (t.row in named or t.fills))

    def _time(self, trial: Trial, reference: Trial, known: float | None) -> float:
        watch = self._watch(trial)
        if known is None:
            return median(watch() for _ in range(TURNS))
        other = self._watch(reference)
        return known * median(watch() / other() for _ in range(TURNS))

    def _watch(self, trial: Trial) -> Callable[[], float]:
        """A function that trains anew and returns the core seconds of a step."""
        self._seconds(trial, FEW)  # what is set up once in a process does not count
        more = MORE
        while self._beyond(trial, more) < TIMED_SECONDS:
            more *= 4
        return lambda: self._beyond(trial, more) / more

    def _beyond(self, trial: Trial, more: int) -> float:
        """Core seconds of so many steps beyond the first; both runs now, as the core's speed changes."""
        least = self._seconds(trial, FEW)
        return self._seconds(trial, FEW + more) - least

    def _seconds(self, trial: Trial, steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = self.configuration(trial, Path(folder), steps)
            if takes_linear(create_model(trial.options["model"])):
                config = replace(config, start="none")
            began = time.process_time()
            self.fit(config)
            return time.process_time() - began

    def start_seconds(self, trial: Trial) -> float:
        """Core seconds of a linear start that a run makes itself."""
        model = create_model(trial.options["model"])
        if trial.start is not None or trial.options.get("start") == "none" or not takes_linear(model):
            return 0.0
        code = Trial("linear start", trial.scale, 0, {"model": f"linear_x{trial.scale}"})
        return TrainingConfig().start_steps * self.pace(code)


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether no other process works in a folder, which none can enter until the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def run_of(left: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What evaluate.py tells of a run, from what training left and the core seconds that it took."""
    options = left["options"]
    run = {"steps": left["step"], **{key: options[key] for key in ("batch_size", "patch", "optimizer")}}
    run |= {"hours": round(seconds / 3600, 2), "device": f"one core of {machine('cpu').split(',')[0]}"}
    return run | ({"linear_start": options["start_steps"]} if options["start"] == "linear" else {})


def empty(out: Path) -> None:
    """Delete what an unfinished run has left: its time is not known."""
    for name in ("state", "start", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("log.jsonl", "last.safetensors"):
        (out / name).unlink(missing_ok=True)


def quiet(line: str) -> None:
    """Take no notice of what training says."""


def identity(result: dict[str, Any]) -> tuple[str, int, int]:
    """Which run of its plan a result is of."""
    return result["row"], result["scale"], result["seed"]


def read_known(file: Path | None) -> dict[str, Any]:
    """What a file of :func:`gather` holds, if there is one."""
    known: dict[str, Any] = {"done": []}
    return json.loads(file.read_text()) if file is not None and file.is_file() else known


def measure_bicubic(plan: str, folders: Sequence[Path], known: dict[str, Any]) -> dict[str, Any]:
    """Bicubic, enlarged with a = -0.75, which is the better of the two usual kernels."""
    return known | {
        f"x{scale}": measure_benchmarks(
            bicubic_rescale(scale, antialias=False), scale, folders, known.get(f"x{scale}", {})
        )
        for scale in sorted({trial.scale for trial in PLANS[plan]})
        if folders
    }


def gather(plan: str, to: Path, known: Sequence[dict[str, Any]], bicubic: dict[str, Any]) -> dict[str, Any]:
    """What is done of a plan, in its order: those of the folder, and those known before."""
    done = {identity(result): result for result in known}
    for trial in PLANS[plan]:
        file = to / trial.name / "result.json"
        if file.is_file():
            done[trial.row, trial.scale, trial.seed] = json.loads(file.read_text())
    names = [(trial.row, trial.scale, trial.seed) for trial in PLANS[plan]]
    gathered = {"plan": plan, "planned": len(names), "done": [done[name] for name in names if name in done]}
    return gathered | ({"bicubic": bicubic} if bicubic else {})


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is left of a plan; return 0, or 2 after an error, or 130 if interrupted."""
    options = parse(argv)
    trials = [trial for trial in PLANS[options.plan] if options.only in trial.name]
    torch.set_num_threads(1)
    try:
        train, val = (
            [read_image(path) for path in find_images(folder)] for folder in (options.data, options.val)
        )
        plan = PLANS[options.plan]
        known = read_known(options.json)
        for folder in options.benchmarks:
            find_images(folder)  # a mistake ends the program now, and not after the training
        Bench(
            trials=plan,
            train=train,
            val=val,
            to=options.to,
            known=known["done"],
            minutes=options.minutes,
            steps=options.steps,
            precision=options.precision,
            benchmarks=options.benchmarks,
        ).run(trials)
        if options.json is not None:
            bicubic = measure_bicubic(options.plan, options.benchmarks, known.get("bicubic", {}))
            gathered = gather(options.plan, options.to, known["done"], bicubic)
            write_json(options.json, json.dumps(gathered, indent=1) + "\n")
            write_json(options.json.with_suffix(".md"), to_markdown(gathered))
    except (RescalingError, OSError) as error:
        print(f"trials.py: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trials.py: interrupted", file=sys.stderr)
        return 130
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself ends with code 2 on a mistake in it."""
    parser = argparse.ArgumentParser(prog="trials.py", description="Train variants under one budget.")
    add = parser.add_argument
    add("plan", choices=sorted(PLANS), help="which variants")
    add("--data", type=Path, required=True, metavar="DIR", help="images to train on")
    add("--val", type=Path, required=True, metavar="DIR", help="images to measure on")
    add("--to", type=Path, required=True, metavar="DIR", help="a folder for each run")
    add("--minutes", type=float, default=20.0, metavar="M", help="core minutes of table1's (default: 20)")
    add("--only", default="", metavar="TEXT", help="only runs with that in their name: x2_, code, _0")
    add("--steps", type=at_least(1), metavar="N", help="no more steps than that, to try it out")
    add("--precision", choices=("auto", "no", "bf16"), default="auto", help="of training (default: auto)")
    add("--benchmarks", type=Path, nargs="+", default=[], metavar="DIR", help="measure and tabulate there")
    add("--json", type=Path, metavar="FILE", help="write there what is done, of this call and before")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
