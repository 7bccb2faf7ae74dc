"""Where trained weights come from: which system of the paper they are, and what they were trained under."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from invertible_rescaling import create_model
from invertible_rescaling.weights import read_metadata


@dataclass(frozen=True)
class Origin:
    """What is told of trained weights.

    Attributes:
        system: the registered model they stand for, where that is known.
        budget: what they were trained under, in words; empty where that is not known.
    """

    system: str | None = None
    budget: str = ""


UNKNOWN = Origin()


def of_recipe(model: str, recipe: dict[str, Any]) -> Origin:
    """The origin of shipped weights."""
    return Origin(_system(model, recipe.get("gan")), in_words(recipe["runs"], recipe.get("gan")))


def of_file(path: Path, config: dict[str, Any]) -> Origin:
    """The origin that the training program wrote into a checkpoint; nothing, if it is not in its words.

    Args:
        path: of the checkpoint.
        config: of the model in it, which tells whether it can be what the training program called it.
    """
    if not path.is_file():  # an address, whose file lies in a cache
        return UNKNOWN
    told = read_metadata(path)["metadata"]
    options = told.get("options")
    if not isinstance(options, dict):
        return UNKNOWN
    runs = told.get("runs") or [{**options, "steps": told.get("step")}]
    budget = in_words(runs, options.get("gan"))
    model = options.get("model")
    if not isinstance(model, str) or not _can_be(model, config):
        return Origin(budget=budget)
    return Origin(_system(model, options.get("gan")), budget)


def in_words(runs: Any, gan: Any = None) -> str:
    """What training took, in words; nothing, where that is not known.

    Example:
        >>> run = {"steps": 1900, "batch_size": 4, "patch": 64, "hours": 0.25, "device": "one core"}
        >>> in_words([run, run | {"steps": 300, "patch": 144, "hours": 0.1, "device": "a GPU"}])
        '0.25 h of one core: 1,900 steps of 4 64x64; 0.1 h of a GPU: 300 steps of 4 144x144'
    """
    known = [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
    known = [run for run in known if isinstance(run.get("steps"), int)]
    parts = [_on_one_device(device, list(group)) for device, group in groupby(known, _device)]
    return "; ".join([*parts, *([f"{gan}'s adversarial loss"] if gan and parts else [])])


def _device(run: dict[str, Any]) -> Any:
    return run.get("device") if isinstance(run.get("hours"), int | float) else None


def _on_one_device(device: Any, runs: Sequence[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for run in runs:
        batch, patch = run.get("batch_size"), run.get("patch")
        size = f" of {batch} {patch}x{patch}" if isinstance(batch, int) and isinstance(patch, int) else ""
        counts[size] = counts.get(size, 0) + run["steps"]
    hours = f"{sum(run['hours'] for run in runs):g} h of {device}: " if device is not None else ""
    return hours + ", ".join(f"{count:,} steps{size}" for size, count in counts.items())


def _system(model: str, gan: Any) -> str:
    """SRResNet and SRGAN's generator are one network: the loss makes the one or the other of it."""
    if model in ("srresnet_x4", "srgan_x4"):
        return "srgan_x4" if gan else "srresnet_x4"
    return model


def _can_be(model: str, config: dict[str, Any]) -> bool:
    try:
        named = create_model(model).config
    except Exception:  # a model of somebody else, which is not registered here
        return False
    return all(named.get(key) == config.get(key) for key in ("architecture", "scale"))
