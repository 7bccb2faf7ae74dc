"""SRResNet, which is SRGAN's generator too."""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from invertible_rescaling.models.super_resolution.base import (
    ResidualBlock,
    SuperResolver,
    conv,
    pixel_shuffles,
)

__all__ = ["SRResNet"]


class SRResNet(SuperResolver, architecture="srresnet"):
    """SRResNet without batch norm, as Mo & Chen count it: 1.52M parameters, 4.07G multiply-adds at 40x40.

    A convolution, residual blocks, pixel shuffles, and two 3x3 convolutions at full size, added to LR
    enlarged by bilinear interpolation. The first paper has batch norm, 9x9 convolutions at both ends and one
    behind the blocks instead of the one before the last, and other figures.

    References:
        Ledig et al. 2017, *Photo-Realistic Single Image Super-Resolution Using a GAN*, Fig. 4;
        Mo & Chen 2021, Table 2.

    Shapes:
        ``(B, channels, h, w) -> (B, channels, scale*h, scale*w)``.

    Args:
        scale, channels: as for every super-resolver.
        width: filters of the convolutions.
        blocks: residual blocks.

    Example:
        >>> from invertible_rescaling.models.super_resolution import SRResNet
        >>> sum(p.numel() for p in SRResNet().parameters())
        1517571
    """

    def __init__(self, scale: int = 4, channels: int = 3, width: int = 64, blocks: int = 16) -> None:
        super().__init__(scale, channels, width=width, blocks=blocks)
        self.activation = nn.LeakyReLU(0.1)
        self.first = conv(channels, width)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.enlarge = pixel_shuffles(width, scale, self.activation)
        self.full_size = conv(width, width)
        self.last = conv(width, channels)

    def forward(self, lr: Tensor) -> Tensor:
        features = self.enlarge(self.body(self.activation(self.first(lr))))
        base = interpolate(lr, scale_factor=self.scale, mode="bilinear", align_corners=False)
        out: Tensor = base + self.last(self.activation(self.full_size(features)))
        return out
