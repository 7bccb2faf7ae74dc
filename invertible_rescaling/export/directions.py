"""Both directions as modules of their own.

``downscale`` and ``upscale`` are methods of one model, and exporters take modules with one ``forward``.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.functional import check_bits
from invertible_rescaling.models.loading import AnyModel

__all__ = ["Direction", "Downscale", "Upscale"]


class Direction(nn.Module, ABC):
    """One direction of a model as a module: :class:`Downscale` or :class:`Upscale`.

    Args:
        model: whose direction it is; it is shared, not copied.

    Raises:
        ConfigError: it is neither a rescaler nor a super-resolver.
    """

    name: str
    argument: str
    result: str

    def __init__(self, model: AnyModel) -> None:
        super().__init__()
        if not isinstance(model, AnyModel):
            raise ConfigError(
                f"{type(self).__name__} takes an InvertibleRescaler or a super-resolver of "
                f"invertible_rescaling.models.super_resolution, got {type(model).__name__}"
            )
        self.model = model
        self.train(model.training)

    @property
    @abstractmethod
    def least_side(self) -> int:
        """The least height and width that :func:`export_program` is made for."""

    def example(self) -> Tensor:
        """A batch ``(2, C, H, W)`` that the direction takes."""
        weight = next(self.parameters(), torch.empty(0))
        shape = (2, self.model.channels, 2 * self.least_side, 3 * self.least_side)
        return torch.full(shape, 0.5, dtype=weight.dtype, device=weight.device)


class Downscale(Direction):
    """``model.downscale`` as a module: HR in [0, 1] to LR as it would be stored.

    Shapes:
        ``(B, C, H, W) -> (B, C, ceil(H/scale), ceil(W/scale))``, any H and W of at least 1: what is no
        multiple of the scale is padded within, by repeating the last row and column.

    Args:
        model: an :class:`~invertible_rescaling.InvertibleRescaler`, or a super-resolver.
        bits: depth LR is rounded to.

    Raises:
        ConfigError: ``model`` is something else.
        ValueRangeError: ``bits`` is not from 1 to 16.

    Example:
        >>> import torch
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.export import Downscale
        >>> Downscale(iirn_x4(blocks=1))(torch.rand(2, 3, 30, 41)).shape
        torch.Size([2, 3, 8, 11])
    """

    name, argument, result = "downscale", "hr", "lr"

    def __init__(self, model: AnyModel, bits: int = 8) -> None:
        super().__init__(model)
        check_bits(bits)
        self.bits = bits

    def forward(self, hr: Tensor) -> Tensor:
        return self.model.downscale(hr, bits=self.bits)

    @property
    def least_side(self) -> int:
        # An LR side of 1 would be a case of its own to PyTorch, which tells strides apart by it.
        return self.model.scale + 1

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


class Upscale(Direction):
    """``model.upscale`` as a module: LR to SR, ``scale`` times larger, clamped to [0, 1].

    What a side was padded by is still there; cut it off with ``sr[..., :H, :W]``.

    Shapes:
        ``(B, C, h, w) -> (B, C, scale*h, scale*w)``, any h and w of at least 1.

    Args:
        model: as for :class:`Downscale`. Its latent is part of the direction.

    Raises:
        ConfigError: ``model`` is something else.

    Example:
        >>> import torch
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.export import Upscale
        >>> Upscale(iirn_x4(blocks=1))(torch.rand(2, 3, 8, 11)).shape
        torch.Size([2, 3, 32, 44])
    """

    name, argument, result = "upscale", "lr", "sr"

    def forward(self, lr: Tensor) -> Tensor:
        return self.model.upscale(lr)

    @property
    def least_side(self) -> int:
        return 2
