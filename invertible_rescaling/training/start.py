"""The linear start: what larger networks learn first, learnt by single convolutions and put in."""

from pathlib import Path
from typing import Any

from torch import nn

from invertible_rescaling.errors import RescalingError
from invertible_rescaling.layers.coupling import AffineCoupling
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.registry import create_model
from invertible_rescaling.training.config import OptionError

COUPLINGS = 2  # of the code, in each stage; four came to the same PSNR


def linear_model(model: InvertibleRescaler) -> InvertibleRescaler:
    """The rescaler of single convolutions whose code a model is to start from, untrained.

    It has the model's scale, channels, latent and clamp, and two couplings a stage, or as few as the model.

    Raises:
        OptionError: a sub-network of the model cannot start as a convolution.
    """
    check_takes_linear(model)
    blocks = [min(COUPLINGS, count) for count in model.blocks]
    return InvertibleRescaler(**(model.config | {"blocks": blocks, "subnet": "conv"}))


def read_linear(given: Path | str, model: InvertibleRescaler) -> InvertibleRescaler:
    """The trained linear model that ``--start`` names: a file, an address, or weights that are shipped.

    Raises:
        OptionError: it is of another scale or structure than the model can start from.
    """
    check_takes_linear(model)
    try:
        code: InvertibleRescaler = create_model(f"linear_x{model.scale}", weights=given)
    except RescalingError as error:
        raise OptionError(
            f"--start {given}: a trained linear_x{model.scale} is needed to start this model from ({error}); "
            "give --start linear to train one first"
        ) from error
    if any(more > there for more, there in zip(code.blocks, model.blocks, strict=True)):
        raise OptionError(
            f"--start {given}: it has {' '.join(map(str, code.blocks))} couplings a stage, and the model "
            f"{' '.join(map(str, model.blocks))}; give --blocks of at least as many"
        )
    return code


def put_linear(code: InvertibleRescaler, model: InvertibleRescaler) -> InvertibleRescaler:
    """Put a linear code into the first couplings of each stage; return the model, which computes the same.

    The other couplings must be as constructed, the identity.

    Example:
        >>> import torch
        >>> from invertible_rescaling import iirn_x2
        >>> from invertible_rescaling.testing import randomize
        >>> code = randomize(InvertibleRescaler(2, blocks=2, subnet="conv"), 0.1)
        >>> model = put_linear(code, iirn_x2(blocks=3))
        >>> hr = torch.rand(1, 3, 16, 16)
        >>> torch.equal(model.downscale(hr), code.downscale(hr))
        True
    """
    for theirs, ours in zip(stages(code), stages(model), strict=True):
        for linear, coupling in zip(theirs, ours, strict=False):
            for name in ("phi", "rho", "eta"):
                convolution: Any = getattr(linear, name).last
                getattr(coupling, name).set_linear(convolution.weight, convolution.bias)
    return model


def check_takes_linear(model: InvertibleRescaler) -> None:
    """Refuse a model with a sub-network that cannot start as a convolution.

    Raises:
        OptionError: naming the sub-network.
    """
    for stage in stages(model):
        for coupling in stage:
            if not hasattr(coupling.phi, "set_linear"):
                raise OptionError(
                    f"--start: {type(coupling.phi).__name__} has no last convolution that reads its input "
                    "(no method set_linear(weight, bias)); give --start none"
                )


def takes_linear(model: nn.Module) -> bool:
    """Return whether a model can start from a linear code: a rescaler with more to learn than that."""
    if not isinstance(model, InvertibleRescaler) or not any(model.blocks):
        return False
    subnets = [coupling.phi for stage in stages(model) for coupling in stage]
    return all(hasattr(subnet, "set_linear") for subnet in subnets) and not is_linear(model)


def is_linear(model: nn.Module) -> bool:
    """Return whether a rescaler is itself made of single convolutions."""
    return isinstance(model, InvertibleRescaler) and model.config["subnet"]["name"] == "conv"


def stages(model: InvertibleRescaler) -> list[list[AffineCoupling]]:
    """The couplings of each stage."""
    found: list[list[AffineCoupling]] = []
    for layer in model.flow:
        if isinstance(layer, AffineCoupling):
            found[-1].append(layer)
        else:
            found.append([])
    return found
