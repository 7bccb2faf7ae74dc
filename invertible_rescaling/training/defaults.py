"""Defaults that depend on the model and on the machine, and on how many steps there are."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.patches import ImagePair
from invertible_rescaling.training.start import is_linear, takes_linear

ON_CPU_SECONDS = 3600.0  # what a run takes there if nothing else is asked for
_RATES = {"soap": 3e-3, "adam-dct": 3e-3, "adam": 8e-4}
_RATE_OF_TRAINED = 3e-4  # of those tried the one that cost trained weights least: docs/training.md


def resolve_recipe(
    options: TrainingConfig, model: nn.Module, scale: int, device: torch.device
) -> TrainingConfig:
    """Replace what was left to the program by what it means for a model on a device.

    Raises:
        OptionError: ``--start`` asks for what the model or ``--weights`` leave no room for.
    """
    small = device.type == "cpu"
    rescaler = isinstance(model, InvertibleRescaler)
    optimizer = options.optimizer
    if optimizer == "auto":
        optimizer = "soap" if rescaler else "adam"
    patch = small_patch(model, scale) if small else 144
    options = replace(
        options,
        optimizer=optimizer,
        start=_resolve_start(options, model),
        lr=_default_rate(options, optimizer) if options.lr is None else options.lr,
        batch_size=options.batch_size or (4 if small else 16),
        patch=options.patch or patch,
    )
    if options.steps is None and options.fit is None:
        options = replace(options, **({"fit": ON_CPU_SECONDS} if small else {"steps": 50_000}))
    return options if options.steps is None else resolve_steps(options, options.steps)


def _default_rate(options: TrainingConfig, optimizer: str) -> float:
    rate = _RATES[optimizer]
    return rate if options.weights is None else min(rate, _RATE_OF_TRAINED)


def small_patch(model: nn.Module, scale: int) -> int:
    """The side of patches on a CPU, of which batches of four make more of a minute than large ones do."""
    if not isinstance(model, InvertibleRescaler):
        return 64
    return 16 * scale if is_linear(model) else max(48, 12 * scale)


def resolve_steps(options: TrainingConfig, steps: int) -> TrainingConfig:
    """Fix how many steps there are, and with that what depends on it."""
    warmup = min(500, 20 + steps // 20) if options.warmup is None else options.warmup
    ema = min(0.999, max(0.9, 1 - 20 / steps)) if options.ema is None else options.ema
    return replace(options, steps=steps, fit=None, warmup=warmup, ema=ema)


def _resolve_start(options: TrainingConfig, model: nn.Module) -> str:
    possible = takes_linear(model)
    if options.start == "auto":
        return "linear" if possible and options.weights is None else "none"
    if options.start == "none":
        return "none"
    if options.weights is not None:
        raise OptionError(
            f"--start {options.start} and --weights {options.weights} both say what to begin with; "
            "leave one of them out"
        )
    if not possible:
        why = "it is linear itself" if is_linear(model) else "no linear code fits its sub-networks"
        raise OptionError(
            f"--start {options.start}: {options.model} cannot start so ({why}); give --start none"
        )
    return options.start


def start_options(
    options: TrainingConfig, code: InvertibleRescaler, images: Sequence[ImagePair]
) -> TrainingConfig:
    """The run that trains the linear code of another: its seed, data and loss, and a recipe of its own."""
    side = min(16 * code.scale, *(side for image in images for side in image.hr.shape[1:]))
    own = replace(
        options,
        model=f"linear_x{code.scale}",
        out=options.out / "start",
        blocks=code.blocks,
        subnet=None,
        weights=None,
        start="none",
        optimizer="soap",
        lr=_RATES["soap"],
        batch_size=4,
        patch=side - side % code.scale,
        sub_images=None,
        schedule="cosine",
        warmup=None,
        ema=None,
        clip=0.1,
        compile="off",
        reversible=False,
        stop_after=None,
        validate_every=options.start_steps,
    )
    return resolve_steps(own, options.start_steps)
