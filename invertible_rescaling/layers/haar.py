"""Fixed invertible transforms: the Haar wavelet step."""

import math
from collections.abc import Sequence

from torch import Tensor

from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.functional import haar_decompose, haar_reconstruct
from invertible_rescaling.layers.base import InvertibleModule, check_state

__all__ = ["HaarDownsampling"]


class HaarDownsampling(InvertibleModule):
    r"""Haar wavelet step that halves height and width and quadruples the channels.

    For each block ``a b / c d``: LL = (a+b+c+d)/4 and the details (a-b+c-d)/4, (a+b-c-d)/4,
    (a-b-c+d)/4; the C low-pass channels come first. It has no parameters, and
    :math:`\log|\det| = C h w \ln\frac{1}{16}` for an output of ``(B, 4C, h, w)``.

    References:
        Xiao et al. 2020, *Invertible Image Rescaling*, section 3.2.

    Shapes:
        ``forward``: ``(B, C, 2h, 2w) -> (B, 4C, h, w)``; ``inverse``: back.

    Args:
        channels: C, the channels of the input.

    Raises:
        ConfigError: ``channels`` is not a positive integer.
        ShapeError: the input's rank, channels, or an odd height or width.

    Example:
        >>> import torch
        >>> from invertible_rescaling import HaarDownsampling
        >>> haar = HaarDownsampling(1)
        >>> haar(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])).flatten()
        tensor([ 4., -1., -2.,  0.])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if not isinstance(channels, int) or channels < 1:
            raise ConfigError(f"HaarDownsampling needs a positive number of channels, got {channels!r}")
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        check_state(x, self.channels, "HaarDownsampling")
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ShapeError(
                f"HaarDownsampling needs an even height and width, got {tuple(x.shape)}; pad the image, or "
                "use InvertibleRescaler.downscale, which takes any size"
            )
        return haar_decompose(x)

    def inverse(self, y: Tensor) -> Tensor:
        check_state(y, 4 * self.channels, "HaarDownsampling.inverse")
        return haar_reconstruct(y)

    def forward_with_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.forward(x)
        return y, self._log_det(y)

    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(y), -self._log_det(y)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        channels, height, width = shape
        return 4 * channels, height // 2, width // 2

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        channels, height, width = shape
        return channels // 4, 2 * height, 2 * width

    def _log_det(self, y: Tensor) -> Tensor:
        blocks = self.channels * y.shape[2] * y.shape[3]
        return y.new_full((y.shape[0],), -math.log(16.0) * blocks)

    def extra_repr(self) -> str:
        return f"channels={self.channels}"
