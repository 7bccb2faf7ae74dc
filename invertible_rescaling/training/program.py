"""The training program: ``invertible-rescaling train``, ``python -m invertible_rescaling.training``."""

import contextlib
import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator, PartialState
from tqdm import tqdm

from invertible_rescaling.errors import RescalingError
from invertible_rescaling.models import AnyModel
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.training.build import begun, build_model
from invertible_rescaling.training.config import OptionError, TrainingConfig, parse_options
from invertible_rescaling.training.data import demo_images, hold_out, training_images, validation_folder
from invertible_rescaling.training.defaults import settle_recipe, start_options
from invertible_rescaling.training.demo import demo_options, finish_demo
from invertible_rescaling.training.device import device_for_images, settle
from invertible_rescaling.training.div2k import download_div2k
from invertible_rescaling.training.patches import ImagePair, PatchSampler
from invertible_rescaling.training.start import linear_model, put_linear, read_linear
from invertible_rescaling.training.trainer import Trainer
from invertible_rescaling.training.validation import ValidationImage, load_validation

Prepare = Callable[
    [TrainingConfig, Accelerator, AnyModel, PatchSampler, Callable[[str], None]], TrainingConfig
]


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
        prepare: called with all that is trained with before training begins; the options that it returns are
            trained with.
        prog: the program's name in its help and messages.
    """
    started = time.monotonic() if started is None else started
    options = parse_options(argv, prog)
    try:
        run(options, started, prepare)
    except KeyboardInterrupt:
        print("interrupted before training began", file=sys.stderr)  # noqa: T201
        return 130
    except (RescalingError, OSError) as error:
        rank = os.environ.get("RANK", "0")
        who = "" if rank == "0" else f" (process {rank})"
        print(f"error{who}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def run(options: TrainingConfig, started: float, prepare: Prepare | None = None) -> None:
    """Prepare and carry out one run, whose time limit counts from ``started``."""
    options = demo_options(options) if options.demo else options
    options.check()
    # Without this, accelerate would take several processes on a machine without a GPU for unrelated ones.
    cpu = options.cpu or not torch.accelerator.is_available()
    device = None if cpu else torch.accelerator.current_accelerator()
    options, said = settle(options, device or torch.device("cpu"))
    try:
        accelerator = Accelerator(mixed_precision=options.precision, cpu=cpu)
    except ValueError as error:  # how accelerate says that the device lacks a precision
        raise OptionError(f"--precision {options.precision}: {error}") from error
    carry_out(options, accelerator, said, started, prepare)
    # The model's wrapper holds on to the process group: it has to be gone before the group is taken down, or
    # the group's threads outlive the interpreter now and then, which aborts the process.
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()


def carry_out(
    options: TrainingConfig,
    accelerator: Accelerator,
    said: Sequence[str],
    started: float,
    prepare: Prepare | None,
) -> None:
    """Load what is needed, train, and say how it ended."""

    def say(line: str) -> None:
        if accelerator.is_main_process:
            tqdm.write(line)
            sys.stdout.flush()

    for line in said:
        say(line)
    before = begun(options)
    model = build_model(options, None if before is None else before.get("config"))
    if before is not None and options.steps is None:  # it was found out by the first steps
        options = replace(options, steps=before["steps"], fit=None if before["steps"] else options.fit)
    if before is not None and options.lr is None:  # --weights, which set it, may be left out by now
        options = replace(options, lr=before["lr"])
    options = settle_recipe(options, model, model.scale, accelerator.device)
    options.check()  # what is settled now may not fit what was given
    start = "none" if before is not None else options.start  # for rescalers alone
    if isinstance(model, InvertibleRescaler) and start not in ("none", "linear"):
        put_linear(read_linear(options.start, model), model)
        say(f"starting from the linear code of {options.start}")
    train, val = load_data(options, model.scale, say)
    sampler = sampler_of(options, model.scale, train, accelerator, say)
    if options.sub_images:
        say(f"drawing from {sampler.regions} sub-images of {options.sub_images}x{options.sub_images}")
    prepare_out(options, accelerator)
    if (
        isinstance(model, InvertibleRescaler)
        and start == "linear"
        and not train_start(options, model, train, accelerator, say, started)
    ):
        return
    del train  # where the sampler has its own copy, memory is free again
    if prepare is not None:
        options = prepare(options, accelerator, model, sampler, say)
    trainer = Trainer(options, accelerator, model, sampler, val, say)
    if trainer.resume():
        say(f"going on after step {trainer.step} of {options.steps or 'as many as fit'}")
    with stopped_by_signals(trainer):
        finished = trainer.run(started)
    if finished:
        best = f"the best weights, of step {trainer.best_step}, and the last are"
        left = best if math.isfinite(trainer.best) else "the last weights are"
        say(f"done: {trainer.step} steps; {left} in {str(options.out)!r}")
    else:
        then = "a demo starts anew each time" if options.demo else "the same command goes on from there"
        say(f"stopped after step {trainer.step} of {trainer.options.steps or 'as many as fit'}; {then}")
    averaged = trainer.averaged_model
    if options.demo and isinstance(averaged, InvertibleRescaler) and accelerator.is_main_process:
        finish_demo(averaged, val[0], options.out / "demo.png", say)


def sampler_of(
    options: TrainingConfig,
    scale: int,
    images: Sequence[ImagePair],
    accelerator: Accelerator,
    say: Callable[[str], None],
) -> PatchSampler:
    """The patches of a run."""
    return PatchSampler(
        images,
        patch=options.patch or 0,
        batch=options.batch_size or 0,
        scale=scale,
        seed=options.seed,
        sub_images=(options.sub_images, options.sub_image_step) if options.sub_images else None,
        device=device_for_images(options.images_on, images, accelerator.device, say),
    )


def train_start(
    options: TrainingConfig,
    model: InvertibleRescaler,
    images: Sequence[ImagePair],
    accelerator: Accelerator,
    say: Callable[[str], None],
    started: float,
) -> bool:
    """Train a linear code in a run below --out and put it into a model; return False if time ran out."""
    code = linear_model(model)
    own = start_options(options, code, images)
    patches = f"{own.batch_size} patches of {own.patch}x{own.patch}"
    say(f"linear start: {own.steps} steps of single convolutions, {patches}")
    prepare_out(own, accelerator)
    trainer = Trainer(own, accelerator, code, sampler_of(own, code.scale, images, accelerator, say), [], say)
    trainer.resume()
    with stopped_by_signals(trainer):
        finished = trainer.run(started)
    if finished:
        put_linear(trainer.averaged_model.cpu(), model)  # type: ignore[arg-type]  # it is a rescaler's
    else:
        say(f"stopped after step {trainer.step} of the linear start; the same command goes on from there")
    accelerator.free_memory()
    return finished


def load_data(
    options: TrainingConfig, scale: int, say: Callable[[str], None]
) -> tuple[list[ImagePair], list[ValidationImage]]:
    """Read the training and validation images that the options name."""
    if options.demo:
        return demo_images()
    data = options.data
    if options.download is not None:
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            download_div2k(options.download, progress=not options.quiet)
        PartialState().wait_for_everyone()
        data = data or options.download
    if data is None:
        raise OptionError("there is nothing to train on")
    folder = validation_folder(data, options.val)
    train = training_images(data, scale, options.patch or 0, options.sub_images, say, held_out=folder)
    if folder is None and options.val_fraction:
        train, held_out = hold_out(train, options.val_fraction)
        say(f"validating on {len(held_out)} of these images, which are not trained on")
        return train, held_out
    if folder is None:
        say("no validation: give --val DIR or --val-fraction 0.05 to see how good the model gets")
        return train, []
    val = load_validation(folder, scale, options.val_limit, lambda line: say(f"skipped: {line}"))
    say(f"validating on {len(val)} images from {str(folder)!r}")
    return train, val


def prepare_out(options: TrainingConfig, accelerator: Accelerator) -> None:
    """Make the output folder; refuse to start a new run on top of another."""
    state = options.out / "state"
    if options.resume == "never" and state.is_dir() and any(state.iterdir()):
        raise OptionError(
            f"{str(options.out)!r} holds a run already; go on with it (--resume auto) or choose another --out"
        )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        options.out.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()


@contextlib.contextmanager
def stopped_by_signals(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the step in hand, save and leave; a second one ends at once."""

    def stop(number: int, _frame: object) -> None:
        trainer.stop_requested = True
        signal.signal(number, signal.SIG_DFL)

    on_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if on_main_thread else ()
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
