"""SRCNN: three convolutions on what bicubic interpolation enlarged."""

from torch import Tensor, nn

from invertible_rescaling.functional import bicubic_resize
from invertible_rescaling.models.super_resolution.base import SuperResolver, conv

__all__ = ["SRCNN"]


class SRCNN(SuperResolver, architecture="srcnn"):
    """SRCNN in its 9-1-5 form with 64 and 32 filters, on all colour channels.

    References:
        Dong et al. 2014, *Learning a Deep Convolutional Network for Image Super-Resolution*, section 4.1.

    Shapes:
        ``(B, channels, h, w) -> (B, channels, scale*h, scale*w)``.

    Args:
        scale, channels: as for every super-resolver.
        width: filters of the first convolution; the second has half as many.

    Example:
        >>> import torch
        >>> from invertible_rescaling.models.super_resolution import SRCNN
        >>> SRCNN()(torch.rand(1, 3, 5, 6)).shape
        torch.Size([1, 3, 20, 24])
    """

    def __init__(self, scale: int = 4, channels: int = 3, width: int = 64) -> None:
        super().__init__(scale, channels, width=width)
        self.activation = nn.ReLU()
        self.patches = conv(channels, width, 9)
        self.mapping = conv(width, max(1, width // 2), 1)
        self.reconstruction = conv(max(1, width // 2), channels, 5)

    def forward(self, lr: Tensor) -> Tensor:
        enlarged = bicubic_resize(lr, (self.scale * lr.shape[2], self.scale * lr.shape[3]))
        features = self.activation(self.mapping(self.activation(self.patches(enlarged))))
        out: Tensor = self.reconstruction(features)
        return out
