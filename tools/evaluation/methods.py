"""What is measured: bicubic, and models trained and untrained, each as a row of the table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.origin import UNKNOWN, Origin, of_file, of_recipe
from evaluation.task import Task
from evaluation.words import one_line, tell_apart
from invertible_rescaling import InvertibleRescaler, RescalingError, create_model, load_checkpoint
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.evaluation import Rescale, bicubic_rescale, model_rescale
from invertible_rescaling.models import AnyModel
from invertible_rescaling.models.super_resolution import SuperResolver
from invertible_rescaling.training.degradations import degradation_of
from invertible_rescaling.weights import weights_of

SEED = 0


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what the line is called.
        kind: ``bicubic``, ``model``, ``checkpoint`` or ``spandrel``.
        rescale: what is measured.
        facts: what else the JSON says of it.
        origin: where its weights come from.
    """

    name: str
    kind: str
    rescale: Rescale
    facts: dict[str, Any] = field(default_factory=dict)
    origin: Origin = UNKNOWN


def bicubic_rows(task: Task) -> list[Row]:
    """Bicubic by its two usual kernels."""
    kernels = {"bicubic (MATLAB's kernel, a = -0.5)": True, "bicubic (enlarged with a = -0.75)": False}
    return [
        Row(
            name,
            "bicubic",
            bicubic_rescale(task.scale, antialias=kernel, through=through_of(task.through), seed=SEED),
        )
        for name, kernel in kernels.items()
    ]


def through_of(words: str | None) -> Callable[[Tensor], Tensor] | None:
    """What happens to LR, in the words of ``train --degrade``.

    Raises:
        ConfigError: it is no degradation, or one that changes what should come of LR.
    """
    if words is None:
        return None
    degradation = degradation_of([words])
    if not degradation.keeps_hr:
        raise ConfigError(f"{words} changes what should come back; name a codec")
    return degradation.of_lr


def model_of(given: str) -> AnyModel:
    """A model by ``NAME:WEIGHTS``, or by its name with the default weights, ready to be measured.

    Raises:
        RescalingError: there is none, or it is no model of images.
    """
    name, _, weights = given.partition(":")
    model = create_model(name, weights=weights or "DEFAULT")
    if not isinstance(model, AnyModel):
        raise ConfigError(f"{name} is a {type(model).__name__}, which enlarges nothing")
    return model.eval()


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
    name: str, kind: str, model: AnyModel, task: Task, facts: dict[str, Any], origin: Origin
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
    tiles: dict[str, Any] = {"tile": task.tile, "overlap": task.overlap}
    tiles = {} if isinstance(model, SuperResolver) else tiles
    rescale = model_rescale(model, seed=SEED, through=through_of(task.through), **tiles)
    return Row(label, kind, rescale, facts | {"config": config}, origin)


def check_model(model: Any, task: Task, what: str) -> AnyModel:
    """Refuse what cannot fill a row of this table."""
    if not isinstance(model, AnyModel):
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


def replace_latent(model: AnyModel, latent: str | None) -> AnyModel:
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
