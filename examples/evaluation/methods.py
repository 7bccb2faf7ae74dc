"""What is measured: bicubic, and models trained and untrained, each as a row of the table."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from evaluation.origin import UNKNOWN, Origin, of_file, of_recipe
from evaluation.task import Task
from evaluation.words import one_line, tell_apart
from invertible_rescaling import InvertibleRescaler, RescalingError, create_model, load_checkpoint
from invertible_rescaling.checkpoint import Storable as Rescaler
from invertible_rescaling.comparison.super_resolver import SuperResolver
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.weights import weights_of

SEED = 0


class Method(Protocol):
    """Shrinks HR ``(1, 3, H, W)`` to an 8-bit LR and restores it: ``method(hr) -> (lr, sr)``."""

    def __call__(self, hr: Tensor, /) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what the line is called.
        kind: ``bicubic``, ``model`` or ``checkpoint``.
        method: what is measured.
        facts: what else the JSON says of it.
        origin: where its weights come from.
    """

    name: str
    kind: str
    method: Method
    facts: dict[str, Any] = field(default_factory=dict)
    origin: Origin = UNKNOWN


def make_bicubic(scale: int, *, antialias: bool) -> Method:
    """Bicubic down, stored at 8 bits, and up; ``antialias`` chooses the kernel of the way up."""

    def method(hr: Tensor) -> tuple[Tensor, Tensor]:
        lr = bicubic_lr(hr, scale)
        height, width = hr.shape[-2:]
        return lr, bicubic_resize(lr, (height, width), antialias=antialias)

    return method


def bicubic_lr(hr: Tensor, scale: int) -> Tensor:
    """The 8-bit bicubic LR that every row's LR is compared with."""
    return quantize(bicubic_resize(hr, (hr.shape[-2] // scale, hr.shape[-1] // scale), antialias=True))


def with_model(model: Rescaler, tile: int | None, overlap: int | None, hr: Tensor) -> tuple[Tensor, Tensor]:
    """Shrink and restore with a rescaler; a random latent is drawn from the same seed for every image."""
    torch.manual_seed(SEED)
    hr = hr.contiguous(memory_format=torch.channels_last)
    height, width = hr.shape[-2:]
    if isinstance(model, SuperResolver):
        lr = model.downscale(hr)
        return lr, model.upscale(lr, size=(height, width))
    lr = model.downscale(hr, tile=tile, overlap=overlap)
    return lr, model.upscale(lr, size=(height, width), tile=tile, overlap=overlap)


def bicubic_rows(scale: int) -> list[Row]:
    """Bicubic by its two usual kernels."""
    return [
        Row("bicubic (MATLAB's kernel, a = -0.5)", "bicubic", make_bicubic(scale, antialias=True)),
        Row("bicubic (enlarged with a = -0.75)", "bicubic", make_bicubic(scale, antialias=False)),
    ]


def model_rows(task: Task, problems: list[str]) -> list[Row]:
    """The rows of ``--model`` and ``--checkpoint``; what cannot be built is added to ``problems``."""
    rows = []
    for given in dict.fromkeys(task.models):
        try:
            rows.append(named_row(given, task))
        except (RescalingError, OSError) as error:
            problems.append(one_line(error))
    checkpoints = list(dict.fromkeys(task.checkpoints))
    stems = tell_apart([path.with_suffix("") for path in checkpoints])
    for path, stem in zip(checkpoints, stems, strict=True):
        try:
            rows.append(checkpoint_row(path, stem, task))
        except (RescalingError, OSError) as error:
            problems.append(one_line(error))
    return rows


def named_row(given: str, task: Task) -> Row:
    """A registered model, NAME untrained or NAME:WEIGHTS.

    Raises:
        RescalingError, OSError: there is no such model or weights, or it cannot fill a row.
    """
    name, colon, weights = given.partition(":")
    made = create_model(name, weights=weights) if colon else create_model(name)
    model = check_model(made, task, f"--model {name}")
    if not colon:
        return model_row(f"{name}, untrained", "model", model, task, {"model": name}, Origin(name))
    members = weights_of(name).__members__
    if weights in members:
        origin = of_recipe(name, members[weights].recipe)
    else:
        origin = of_file(Path(weights), model.config)
    facts = {"model": name, "weights": weights}
    return model_row(f"{name}, {weights}", "model", model, task, facts, origin)


def checkpoint_row(path: Path, label: str, task: Task) -> Row:
    """What a checkpoint holds.

    Raises:
        RescalingError, OSError: it cannot be read, or cannot fill a row.
    """
    model = check_model(load_checkpoint(path, kind=nn.Module), task, f"--checkpoint {path}")
    origin = of_file(path, model.config)
    return model_row(label, "checkpoint", model, task, {"file": str(path)}, origin)


def model_row(
    name: str, kind: str, model: Rescaler, task: Task, facts: dict[str, Any], origin: Origin
) -> Row:
    """Make a model ready to be measured, in float32 on the device."""
    model = replace_latent(model, task.latent)
    config = model.config
    model = model.float().eval().to(task.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    if isinstance(model, InvertibleRescaler):
        structure = f"x{model.scale} {describe(config['subnet'])} {'+'.join(map(str, model.blocks))}"
        label = f"{name} ({structure}, {describe(config['latent'])} latent)"
    else:
        label = f"{name} (x{model.scale} {model.architecture}, on bicubic LR)"
    method = partial(with_model, model, task.tile, task.overlap)
    return Row(label, kind, method, facts | {"config": config}, origin)


def check_model(model: Any, task: Task, what: str) -> Rescaler:
    """Refuse what cannot fill a row of this table."""
    if not isinstance(model, Rescaler):
        raise ConfigError(
            f"{what} is a {type(model).__name__}, which does not shrink images; name a rescaler"
        )
    if model.scale != task.scale:
        raise ConfigError(
            f"{what} is a model of scale {model.scale}, not {task.scale}: use --scale {model.scale}"
        )
    if model.channels != 3:
        raise ConfigError(f"{what} takes {model.channels} channels; images are read as RGB, which has 3")
    return model


def replace_latent(model: Rescaler, latent: str | None) -> Rescaler:
    """The same bijection with another latent, where one is asked for; what has none stays as it is."""
    if latent is None or isinstance(model, SuperResolver):
        return model
    other = InvertibleRescaler(**(model.config | {"latent": latent}))
    other.flow = model.flow
    return other


def describe(spec: dict[str, Any]) -> str:
    """``{"name": "crdb", "growth": 16}`` -> ``crdb growth=16``; what the name implies is left out."""
    implied = {"wavelet": "haar", "correction": "ratio"}
    options = {key: value for key, value in spec.items() if key != "name" and implied.get(key) != value}
    return " ".join([spec["name"], *(f"{key}={value}" for key, value in options.items())])
