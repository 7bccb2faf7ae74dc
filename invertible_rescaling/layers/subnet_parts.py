"""What sub-networks are made of: channel attention, and modules that hold the parameters of convolutions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels.dense_function import mean_and_maximum
from invertible_rescaling.layers.pooling import current_pooling

__all__ = ["ChannelAttention"]

_INIT_SCALE = 0.1


class ChannelAttention(nn.Module):
    """CBAM's channel attention: weigh each channel by what the whole feature map holds.

    ``x * sigmoid(mlp(mean(x)) + mlp(max(x)))`` with one shared two-layer 1x1 MLP.

    References:
        Woo et al. 2018, *CBAM*, section 3.1.

    Shapes:
        ``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        channels: C.
        reduction: the MLP has ``max(1, C // reduction)`` hidden units.

    Example:
        >>> import torch
        >>> from invertible_rescaling import ChannelAttention
        >>> ChannelAttention(32)(torch.rand(2, 32, 5, 7)).shape
        torch.Size([2, 32, 5, 7])
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        check_positive("ChannelAttention", channels=channels, reduction=reduction)
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(_conv1x1(channels, hidden), nn.ReLU(), _conv1x1(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights alone, ``(B, C, 1, 1)`` in (0, 1)."""
        mean, peak = (current_pooling() or mean_and_maximum)(x)
        return torch.sigmoid(self.mlp(mean) + self.mlp(peak))


class Conv3x3(nn.Module):
    """The parameters of a 3x3 convolution that keeps height and width: Xavier-normal times 0.1, or zeros."""

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1, zero: bool = False) -> None:
        super().__init__()
        self.dilation = dilation
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if not zero:
            _init_hidden(self.weight)

    def extra_repr(self) -> str:
        outs, ins = self.weight.shape[:2]
        return f"{ins}, {outs}" + (f", dilation={self.dilation}" if self.dilation > 1 else "")


class HiddenConvs(nn.Module):
    """The parameters of 3x3 convolutions of ``growth`` filters, each reading the input and all before it."""

    def __init__(self, in_channels: int, growth: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            Conv3x3(in_channels + i * growth, growth, dilation=dilation)
            for i, dilation in enumerate(dilations)
        )
        self.out_channels = in_channels + len(dilations) * growth


def _init_hidden(weight: Tensor) -> None:
    with torch.no_grad():
        nn.init.xavier_normal_(weight).mul_(_INIT_SCALE)


def _conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 1)
    _init_hidden(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # bias is a Parameter here, bias=True is the default
    return conv


def check_positive(who: str, **sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{who} needs {name} to be a positive integer, got {value!r}")
