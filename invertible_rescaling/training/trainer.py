"""Training from a configuration to weights: the images, the model, its linear start, and the run."""

import contextlib
import copy
import gc
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from tqdm import tqdm

from invertible_rescaling.models import AnyModel
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.training.build import build_model, check_model, is_untrained, resumable_config
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.data import (
    hold_out,
    load_data,
    sampler_of,
    validation_folder,
    validation_images,
)
from invertible_rescaling.training.dataset import as_pair, check_hr
from invertible_rescaling.training.defaults import resolve_recipe, start_options
from invertible_rescaling.training.demo import demo_options, finish_demo
from invertible_rescaling.training.device import resolve_auto
from invertible_rescaling.training.patches import ImagePair, PatchSampler
from invertible_rescaling.training.run import Run
from invertible_rescaling.training.start import linear_model, put_linear, read_linear
from invertible_rescaling.training.validation import ValidationImage

__all__ = ["Trainer", "TrainingResult"]

Log = Callable[[str], None]
_OF_CALLER = "of the caller"  # a model's name, and its weights', in the record of a run
Prepare = Callable[[TrainingConfig, Accelerator, AnyModel, PatchSampler, Log], TrainingConfig]


@dataclass(frozen=True)
class TrainingResult:
    """What a call of :meth:`Trainer.fit` came to.

    Attributes:
        model: with averaged weights, on the CPU and in evaluation mode; ``None`` where the call ended within
            the linear start.
        finished: whether all steps are made; if not, another call goes on.
        step: steps made, in this call and before.
        metrics: of the newest validation, ``psnr_rgb`` and others, and its ``step``; empty without one.
        best_step: the step of ``best.safetensors``; ``None`` without validation images.
        out: the folder with the weights, the state to go on from, the log and the curves.
    """

    model: AnyModel | None
    finished: bool
    step: int
    metrics: dict[str, float]
    best_step: int | None
    out: Path


class Trainer:
    """Train a rescaler or a super-resolver; stop anywhere, and go on.

    A rescaler begins with its linear code and is trained with SOAP, unless the configuration says otherwise.
    Needs the extra ``[train]``. On several processes, start the script by ``accelerate launch``.

    Args:
        config: all options.
        train: images to train on, by default those that ``config.data`` names: tensors ``(3, H, W)`` in
            uint8, or :class:`~invertible_rescaling.training.ImagePair` with an LR image of their own.
        val: images to validate on, tensors likewise; by default those that ``config.val`` names.
        model: to train a copy of, in place of the one that ``config.model`` names. A trained rescaler is
            gone on with as with ``config.weights``: no linear start, and by default a lower rate.
        log: takes the lines that say how the run goes; they are printed by default.

    Raises:
        OptionError: options that do not fit together, or nothing to train on.
        DtypeError, ShapeError: an image is no ``(3, H, W)`` in uint8.

    Example:
        >>> import tempfile, torch
        >>> from invertible_rescaling.training import Trainer, TrainingConfig
        >>> images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)]
        >>> with tempfile.TemporaryDirectory() as out:
        ...     config = TrainingConfig(model="linear_x2", out=out, steps=3, patch=16, cpu=True, quiet=True)
        ...     result = Trainer(config, images, images[:1], log=lambda line: None).fit()
        >>> result.finished, result.step, type(result.model).__name__
        (True, 3, 'InvertibleRescaler')
    """

    def __init__(
        self,
        config: TrainingConfig,
        train: Sequence[Tensor | ImagePair] | None = None,
        val: Sequence[Tensor] | None = None,
        *,
        model: AnyModel | None = None,
        log: Log | None = None,
    ) -> None:
        config = demo_options(config) if config.demo else config
        config.check()
        if train is None:
            config.check_data()
        if model is not None:
            if config.weights is not None:
                raise OptionError(f"a model and weights={config.weights!r} were given; leave one of them out")
            trained = isinstance(model, InvertibleRescaler) and not is_untrained(model)
            config = replace(config, model=_OF_CALLER, weights=_OF_CALLER if trained else None)
        self.config = config
        self._train = None if train is None else [as_pair(image) for image in train]
        checked = [ValidationImage(f"image {i}", check_hr(hr).unsqueeze(0)) for i, hr in enumerate(val or ())]
        self._val = None if val is None else checked
        self._model = model
        self._log = log or _print

    def fit(self) -> TrainingResult:
        """Train until all steps are made, the time is over, or Ctrl-C or SIGTERM asks for an end.

        A run that lies in ``config.out`` goes on, and ends with the weights of one that was never cut.

        Raises:
            OptionError: ``config.out`` holds another run, or the model does not take the options.
            TrainingError: gradients stay infinite or NaN for ``config.max_skipped_steps`` in a row.
            ImageError, CheckpointError, OSError: images, weights or the state cannot be read or written.
        """
        return self._fit()

    def _fit(self, started: float | None = None, prepare: Prepare | None = None) -> TrainingResult:
        """Do as :meth:`fit`; for the training program.

        Args:
            started: ``time.monotonic()`` from which a time limit counts; that of the call by default.
            prepare: called with all that is trained with before the first step; the options that it returns
                are trained with.
        """
        started = time.monotonic() if started is None else started
        # Without this, accelerate would take several processes on a machine without a GPU for unrelated ones.
        cpu = self.config.cpu or not torch.accelerator.is_available()
        device = None if cpu else torch.accelerator.current_accelerator()
        options, lines = resolve_auto(self.config, device or torch.device("cpu"))
        try:
            accelerator = Accelerator(mixed_precision=options.precision, cpu=cpu)
        except ValueError as error:  # how accelerate says that the device lacks a precision
            raise OptionError(f"--precision {options.precision}: {error}") from error

        def say(line: str) -> None:
            if accelerator.is_main_process:
                self._log(line)

        for line in lines:
            say(line)
        result = self._carry_out(options, accelerator, say, started, prepare)
        if accelerator.num_processes == 1:
            accelerator.end_training()
            AcceleratorState._reset_state(reset_partial_state=True)  # another fit may have another precision
            return result
        # The model's wrapper holds on to the process group: it has to be gone before the group is taken down,
        # or the group's threads outlive the interpreter now and then, which aborts the process.
        accelerator.wait_for_everyone()
        accelerator.free_memory()
        gc.collect()
        accelerator.end_training()
        return result

    def _carry_out(
        self,
        options: TrainingConfig,
        accelerator: Accelerator,
        say: Log,
        started: float,
        prepare: Prepare | None,
    ) -> TrainingResult:
        before = resumable_config(options)
        given = None if self._model is None else check_model(copy.deepcopy(self._model).cpu(), options)
        model = given or build_model(options, None if before is None else before.get("config"))
        if before is not None and options.steps is None:  # it was found out by the first steps
            options = replace(options, steps=before["steps"], fit=None if before["steps"] else options.fit)
        if before is not None and options.lr is None:  # --weights, which set it, may be left out by now
            options = replace(options, lr=before["lr"])
        options = resolve_recipe(options, model, model.scale, accelerator.device)
        options.check()  # what is settled now may not fit what was given
        start = "none" if before is not None else options.start  # for rescalers alone
        if isinstance(model, InvertibleRescaler) and start not in ("none", "linear"):
            put_linear(read_linear(options.start, model), model)
            say(f"starting from the linear code of {options.start}")
        train, val = self._images(options, model.scale, say)
        sampler = sampler_of(options, model.scale, train, accelerator.device, say)
        if options.sub_images:
            say(f"drawing from {sampler.regions} sub-images of {options.sub_images}x{options.sub_images}")
        _prepare_out(options, accelerator)
        if (
            isinstance(model, InvertibleRescaler)
            and start == "linear"
            and not _train_start(options, model, train, accelerator, say, started)
        ):
            return TrainingResult(None, False, 0, {}, None, options.out)
        del train  # where the sampler has its own copy, memory is free again
        if prepare is not None:
            options = prepare(options, accelerator, model, sampler, say)
        run = Run(options, accelerator, model, sampler, val, say)
        if run.resume():
            say(f"going on after step {run.step} of {options.steps or 'as many as fit'}")
        with _stopped_by_signals(run):
            finished = run.run(started)
        if finished:
            best = f"the best weights, of step {run.best_step}, and the last are"
            left = best if math.isfinite(run.best) else "the last weights are"
            say(f"done: {run.step} steps; {left} in {str(options.out)!r}")
        else:
            then = "a demo starts anew each time" if options.demo else "the same command goes on from there"
            say(f"stopped after step {run.step} of {run.options.steps or 'as many as fit'}; {then}")
        averaged = run.averaged_model.cpu().eval()
        if options.demo and isinstance(averaged, InvertibleRescaler) and accelerator.is_main_process:
            finish_demo(averaged, val[0], options.out / "demo.png", say)
        best_step = run.best_step if math.isfinite(run.best) else None
        return TrainingResult(averaged, finished, run.step, run.metrics, best_step, options.out)

    def _images(
        self, options: TrainingConfig, scale: int, say: Log
    ) -> tuple[list[ImagePair], list[ValidationImage]]:
        if self._train is None:
            train, val = load_data(options, scale, say)
            return train, val if self._val is None else self._val
        if self._val is not None:
            return self._train, self._val
        if options.val_fraction:
            return hold_out(self._train, options.val_fraction)
        folder = validation_folder(None, options.val)
        return self._train, [] if folder is None else validation_images(folder, options, scale, say)


def _print(line: str) -> None:
    tqdm.write(line)  # above a progress bar
    sys.stdout.flush()


def _train_start(
    options: TrainingConfig,
    model: InvertibleRescaler,
    images: Sequence[ImagePair],
    accelerator: Accelerator,
    say: Log,
    started: float,
) -> bool:
    """Train a linear code in a run below --out and put it into a model; return False if time ran out."""
    code = linear_model(model)
    own = start_options(options, code, images)
    patches = f"{own.batch_size} patches of {own.patch}x{own.patch}"
    say(f"linear start: {own.steps} steps of single convolutions, {patches}")
    _prepare_out(own, accelerator)
    run = Run(own, accelerator, code, sampler_of(own, code.scale, images, accelerator.device, say), [], say)
    run.resume()
    with _stopped_by_signals(run):
        finished = run.run(started)
    if finished:
        put_linear(run.averaged_model.cpu(), model)  # type: ignore[arg-type]  # it is a rescaler's
    else:
        say(f"stopped after step {run.step} of the linear start; the same command goes on from there")
    accelerator.free_memory()
    return finished


def _prepare_out(options: TrainingConfig, accelerator: Accelerator) -> None:
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
def _stopped_by_signals(run: Run) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the step in hand, save and leave; a second one ends at once.

    A signal that is ignored stays ignored, as shells want of what runs in the background.
    """
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: object) -> None:
        run.stop_requested = True
        signal.signal(number, before[number])

    if threading.current_thread() is not threading.main_thread():
        before = {}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
