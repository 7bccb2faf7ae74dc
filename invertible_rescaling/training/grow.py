"""Deeper networks from trained ones: couplings are added that change nothing until they are trained."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from invertible_rescaling.models.config import blocks_per_stage
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.training.config import OptionError


def grow(model: InvertibleRescaler, blocks: int | Sequence[int]) -> InvertibleRescaler:
    """Add couplings at the end of each stage; as constructed, a coupling is the identity.

    Args:
        model: trained, or not.
        blocks: couplings per stage that the result is to have, one number for all stages or one for each.

    Returns:
        A model that computes what the given one does; the given one itself, if it has as many already.

    Raises:
        OptionError: a stage would have fewer couplings than it has.

    Example:
        >>> import torch
        >>> from invertible_rescaling import small_x4
        >>> small = small_x4(weights="DEFAULT")
        >>> large = grow(small, 8)
        >>> hr = torch.rand(1, 3, 16, 16)
        >>> torch.equal(large.downscale(hr), small.downscale(hr))
        True
    """
    wanted = blocks_per_stage(blocks, model.levels)
    if wanted == model.blocks:
        return model
    if any(more < there for more, there in zip(wanted, model.blocks, strict=True)):
        raise OptionError(
            f"--blocks {' '.join(map(str, wanted))}: the weights have {' '.join(map(str, model.blocks))} "
            "couplings a stage, and none can be left out"
        )
    large = InvertibleRescaler(**(model.config | {"blocks": list(wanted)}))
    large.latent = model.latent
    for theirs, ours in zip(_stages(model), _stages(large), strict=True):
        for trained, layer in zip(theirs, ours, strict=False):
            layer.load_state_dict(trained.state_dict())
    return large


def _stages(model: InvertibleRescaler) -> list[list[nn.Module]]:
    """The layers of each stage: a Haar step and its couplings."""
    ends = [sum(model.blocks[:stage]) + stage for stage in range(model.levels + 1)]
    layers: list[nn.Module] = list(model.flow)
    return [layers[start:end] for start, end in pairwise(ends)]
