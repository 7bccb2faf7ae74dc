"""Train an invertible rescaler, or a network to compare it with, on a folder of images, DIV2K or any other.

    python examples/train_div2k.py --demo
    python examples/train_div2k.py --data photographs --val some_others --model iirn_x4 --out runs/mine
    python examples/train_div2k.py --data photographs --val some_others --model edsr_x4 --out runs/edsr
    accelerate launch --num_processes 4 examples/train_div2k.py --data DIV2K
    torchrun --nproc_per_node 4 examples/train_div2k.py --data DIV2K

A run can be stopped at any moment, by --time-limit, Ctrl-C or a power cut; the same command goes on with it
and ends with the weights of a run that was never interrupted. In --out it leaves ``best.safetensors`` and
``last.safetensors`` (for ``load_checkpoint``), ``state/`` (for resuming), ``log.jsonl`` and ``tensorboard/``.
"""

from training.clock import STARTED  # first: a time limit counts what the imports below take

# isort: split
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
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from tqdm import tqdm

from invertible_rescaling import InvertibleRescaler, RescalingError
from invertible_rescaling.data import ImagePair, PatchSampler
from training.building import begun, build_model
from training.demo import demo_options, finish_demo, steps_within
from training.download import download_div2k
from training.loop import Trainer
from training.machine import device_for_images, settle
from training.options import OptionError, Options, parse_options
from training.sources import demo_images, training_images, validation_folder
from training.validation import ValidationImage, load_validation


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """Run the program; return its exit code: 0 for done or cleanly stopped, 2 for an error.

    Args:
        argv: the command line.
        started: ``time.monotonic()`` from which a time limit counts; that of the call by default.
    """
    started = time.monotonic() if started is None else started
    options = parse_options(argv)
    try:
        run(options, started)
    except KeyboardInterrupt:
        print("interrupted before training began", file=sys.stderr)
        return 130
    except (RescalingError, OSError) as error:
        rank = os.environ.get("RANK", "0")
        print(f"error{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: Options, started: float) -> None:
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
    carry_out(options, accelerator, said, started)
    # The model's wrapper holds on to the process group: it has to be gone before the group is taken down, or
    # the group's threads outlive the interpreter now and then, which aborts the process.
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()


def carry_out(options: Options, accelerator: Accelerator, said: Sequence[str], started: float) -> None:
    """Load what is needed, train, and say how it ended."""

    def say(line: str) -> None:
        if accelerator.is_main_process:
            tqdm.write(line)
            sys.stdout.flush()

    for line in said:
        say(line)
    model = build_model(options, begun(options))
    train, val = load_data(options, model.scale, say)
    if options.demo and isinstance(model, InvertibleRescaler):
        options = replace(options, steps=steps_within(options, model, train))
    sampler = PatchSampler(
        train,
        patch=options.patch,
        batch=options.batch_size,
        scale=model.scale,
        seed=options.seed,
        sub_images=(options.sub_images, options.sub_image_step) if options.sub_images else None,
        device=device_for_images(options.images_on, train, accelerator.device, say),
    )
    del train  # where the sampler has its own copy, memory is free again
    if options.sub_images:
        say(f"drawing from {sampler.regions} sub-images of {options.sub_images}x{options.sub_images}")
    prepare_out(options, accelerator)
    trainer = Trainer(options, accelerator, model, sampler, val, say)
    if trainer.resume():
        say(f"going on after step {trainer.step} of {options.steps}")
    with stopped_by_signals(trainer):
        finished = trainer.run(started)
    if finished:
        left = "best and last weights are" if math.isfinite(trainer.best) else "the last weights are"
        say(f"done: {options.steps} steps; {left} in {str(options.out)!r}")
    else:
        then = "a demo starts anew each time" if options.demo else "the same command goes on from there"
        say(f"stopped after step {trainer.step} of {options.steps}; {then}")
    averaged = trainer.averaged_model
    if options.demo and isinstance(averaged, InvertibleRescaler) and accelerator.is_main_process:
        finish_demo(averaged, val[0], options.out / "demo.png", say)


def load_data(
    options: Options, scale: int, say: Callable[[str], None]
) -> tuple[list[ImagePair], list[ValidationImage]]:
    """Read the training and validation images that the options name."""
    if options.demo:
        return demo_images()
    data = options.data
    if options.download is not None:
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            download_div2k(options.download, progress=None if options.quiet else show_download())
        PartialState().wait_for_everyone()
        data = data or options.download
    if data is None:
        raise OptionError("there is nothing to train on")
    folder = validation_folder(data, options.val)
    train = training_images(data, scale, options.patch, options.sub_images, say, held_out=folder)
    if folder is None:
        say("no validation: give --val DIR to see how good the model gets and to keep the best weights")
        return train, []
    val = load_validation(folder, scale, options.val_limit, lambda line: say(f"skipped: {line}"))
    say(f"validating on {len(val)} images from {str(folder)!r}")
    return train, val


def show_download() -> Callable[[str, int, int], None]:
    """A progress bar for each archive."""
    bars: dict[str, tqdm[Any]] = {}

    def progress(name: str, done: int, total: int) -> None:
        if name not in bars:
            bars[name] = tqdm(total=total, unit="B", unit_scale=True, desc=name)
        bars[name].update(done - bars[name].n)

    return progress


def prepare_out(options: Options, accelerator: Accelerator) -> None:
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


if __name__ == "__main__":
    sys.exit(main(started=STARTED))
