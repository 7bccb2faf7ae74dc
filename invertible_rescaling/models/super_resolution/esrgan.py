"""ESRGAN's generator, of the library's own RRDB."""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from invertible_rescaling.layers.subnets import RRDB
from invertible_rescaling.models.super_resolution.base import SuperResolver, conv

__all__ = ["ESRGAN"]


class ESRGAN(SuperResolver, architecture="esrgan"):
    """ESRGAN's generator, RRDBNet: residual-in-residual dense blocks and enlarging by nearest neighbours.

    The last convolution of each dense block starts as zeros, so that the untrained body is the identity.

    References:
        Wang et al. 2018, *ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks*, section 3.1.

    Shapes:
        ``(B, channels, h, w) -> (B, channels, scale*h, scale*w)``.

    Args:
        scale, channels: as for every super-resolver.
        width: filters of the convolutions between the blocks.
        blocks: RRDBs.
        growth: filters of the convolutions within them.

    Example:
        >>> from invertible_rescaling.models.super_resolution import ESRGAN
        >>> sum(p.numel() for p in ESRGAN().parameters())
        16697987
    """

    def __init__(
        self, scale: int = 4, channels: int = 3, width: int = 64, blocks: int = 23, growth: int = 32
    ) -> None:
        super().__init__(scale, channels, width=width, blocks=blocks, growth=growth)
        self.activation = nn.LeakyReLU(0.2)
        self.first = conv(channels, width)
        self.body = nn.Sequential(*(RRDB(width, growth=growth) for _ in range(blocks)), conv(width, width))
        self.enlarge = nn.ModuleList(conv(width, width) for _ in range(scale.bit_length() - 1))
        self.full_size = conv(width, width)
        self.last = conv(width, channels)

    def forward(self, lr: Tensor) -> Tensor:
        features = self.first(lr)
        features = features + self.body(features)
        for layer in self.enlarge:
            features = self.activation(layer(interpolate(features, scale_factor=2, mode="nearest")))
        out: Tensor = self.last(self.activation(self.full_size(features)))
        return out
