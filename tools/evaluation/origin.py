"""Where trained weights come from: which system of the paper they are, and what they were trained under."""

from dataclasses import dataclass
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
    return Origin(_system(model, recipe.get("gan")), in_words(recipe))


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
    budget = in_words({**options, "steps": told.get("step")})
    model = options.get("model")
    if not isinstance(model, str) or not _can_be(model, config):
        return Origin(budget=budget)
    return Origin(_system(model, options.get("gan")), budget)


def in_words(recipe: dict[str, Any]) -> str:
    """What training took: ``0.25 h of one core, 1,900 steps of 4 64x64, esrgan's adversarial loss``."""
    hours, device, steps, batch, patch, gan = (
        recipe.get(key) for key in ("hours", "device", "steps", "batch_size", "patch", "gan")
    )
    if not isinstance(steps, int):
        return ""
    parts = [f"{hours:g} h of {device}"] if isinstance(hours, int | float) else []
    sized = isinstance(batch, int) and isinstance(patch, int)
    parts.append(f"{steps:,} steps" + (f" of {batch} {patch}x{patch}" if sized else ""))
    if gan:
        parts.append(f"{gan}'s adversarial loss")
    return ", ".join(parts)


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
