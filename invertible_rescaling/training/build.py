"""The model of a run: made by name or as the run's state says, and checked against the options."""

import copy
import os
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import avg_pool2d

from invertible_rescaling.models import AnyModel, model_of
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.models.super_resolution import SuperResolver
from invertible_rescaling.registry import create_model, list_models
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.grow import grow
from invertible_rescaling.training.state import load_newest_state
from invertible_rescaling.weights import weights_of


def resumable_config(options: TrainingConfig) -> dict[str, Any] | None:
    """Return the options that identify a run to be resumed; ``None`` where one begins."""
    found = load_newest_state(options.out / "state", lambda line: None) if options.resume == "auto" else None
    return None if found is None else found[2]["fixed"]


def build_model(options: TrainingConfig, config: dict[str, Any] | None = None) -> AnyModel:
    """Make the model by name, with the overrides and weights of the command line, from the seed.

    A run that has begun with weights, which have a structure of their own and may be gone since, tells by its
    ``config`` what to make: all weights come from its state.

    Raises:
        OptionError: the model cannot be trained, or not by these options.
    """
    torch.manual_seed(options.seed)
    try:
        model: Any = make(options) if config is None else model_of(config)
    except TypeError as error:  # a third party's factory that takes no such override
        raise OptionError(f"--model {options.model} cannot be made: {error}") from error
    return check_model(model, options)


def check_model(model: Any, options: TrainingConfig) -> AnyModel:
    """Return a model that can be trained by these options.

    Raises:
        OptionError: it cannot.
    """
    if not isinstance(model, AnyModel):
        raise OptionError(
            f"--model {options.model} is a {type(model).__name__}, neither an InvertibleRescaler nor a "
            "SuperResolver"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OptionError(f"--model {options.model} has nothing to train; give it --blocks of at least 1")
    if isinstance(model, SuperResolver):
        check_super_resolver(options)
        return model
    if options.gan is not None:
        raise OptionError(f"--gan trains super-resolvers such as esrgan_x4; {options.model} is a rescaler")
    return model.enable_reversible_backprop(options.reversible)


def is_untrained(model: InvertibleRescaler) -> bool:
    """Return whether a rescaler's couplings are the identity, as they are made: LR is then plain means."""
    weight = next(model.parameters(), torch.zeros(()))
    noise = torch.rand(1, model.channels, 8 * model.scale, 8 * model.scale, generator=torch.Generator())
    hr = noise.to(weight)
    with torch.no_grad():
        lr, _ = copy.deepcopy(model).eval()(hr)
    return torch.allclose(lr, avg_pool2d(hr, model.scale), atol=1e-5)


def make(options: TrainingConfig) -> Any:
    """The model by name; weights with fewer couplings than --blocks asks for are grown to as many."""
    weights, overrides = chosen_weights(options), options.overrides
    blocks = overrides.pop("blocks", None) if weights is not None else None
    model = create_model(options.model, weights=weights, **overrides)
    if blocks is None:
        return model
    if not isinstance(model, InvertibleRescaler):
        raise OptionError(f"--blocks are couplings; {options.model} is a {type(model).__name__}")
    return grow(model, blocks)


def check_super_resolver(options: TrainingConfig) -> None:
    """Refuse what a super-resolver, which learns the way up alone, has no use for.

    Raises:
        OptionError: naming the option.
    """
    if options.demo:
        raise OptionError(f"--demo shows an invertible rescaler; {options.model} is a super-resolver")
    plain, two_way = TrainingConfig(), ("reversible", "loss_weights", "chroma", "degrade", "start")
    given = [name for name in two_way if getattr(options, name) != getattr(plain, name)]
    if given:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise OptionError(
            f"{flags}: for the two directions of a rescaler; {options.model} is a super-resolver, whose loss "
            "is the distance of SR to HR (and --gan)"
        )


def chosen_weights(options: TrainingConfig) -> Path | str | None:
    """Return the meaning of --weights: a path where there is such a file, else a name or an address."""
    given = options.weights
    return Path(given) if given is not None and os.path.isfile(given) else given


def weights_label(options: TrainingConfig) -> str | None:
    """``--weights`` as it is noted with the run: ``DEFAULT`` will be another member some day."""
    chosen = chosen_weights(options)
    if isinstance(chosen, str) and options.model in list_models(pretrained=True):
        members = weights_of(options.model).__members__
        return members[chosen].name if chosen in members else chosen
    return None if chosen is None else str(chosen)
