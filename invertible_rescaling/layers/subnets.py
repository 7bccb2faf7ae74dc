"""The networks phi, rho and eta inside a coupling; each keeps height and width.

All use LeakyReLU(0.2), Xavier-normal weights times 0.1 in the hidden convolutions and a last
convolution of zeros, so that an untrained coupling is the identity.

A sub-network computes all its convolutions in one function, so that the fast kernels can take over. The
modules inside hold parameters: they can be parametrized (:mod:`torch.nn.utils.parametrize`), and hooks on
them are not called. Hooks on the sub-network itself are.
"""

from typing import Any

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.kernels.dense import DenseLayers
from invertible_rescaling.kernels.dense_function import dense_block
from invertible_rescaling.kernels.narrow_conv import conv3x3
from invertible_rescaling.layers.pooling import current_pooling
from invertible_rescaling.layers.subnet_parts import ChannelAttention, Conv3x3, HiddenConvs, check_positive

__all__ = ["CRDB", "RRDB", "Conv", "DenseBlock"]

_SLOPE = 0.2  # of LeakyReLU
_RESIDUAL_SCALE = 0.2


def _run_dense_block(
    x: Tensor, features: HiddenConvs, attention: ChannelAttention | None, last: Conv3x3
) -> Tensor:
    convs: list[Any] = [*features.convs, last]
    mlp: list[Any] = [] if attention is None else [attention.mlp[0], attention.mlp[2]]
    layers = DenseLayers(
        tuple(conv.weight for conv in convs),
        tuple(conv.bias for conv in convs),
        tuple(tensor for conv in mlp for tensor in (conv.weight, conv.bias)),
        tuple(conv.dilation for conv in convs[:-1]),
        _SLOPE,
    )
    return dense_block(x, layers, None if attention is None else current_pooling())


class DenseBlock(nn.Module):
    """IRN's sub-network: four densely connected 3x3 convolutions and a fifth that reads them all.

    References:
        Xiao et al. 2020, *Invertible Image Rescaling*, section 4.1; Huang et al. 2017, *DenseNet*.

    Shapes:
        ``(B, in_channels, H, W) -> (B, out_channels, H, W)``.

    Args:
        in_channels, out_channels: channels in and out.
        growth: filters of each hidden convolution.

    Example:
        >>> import torch
        >>> from invertible_rescaling import DenseBlock
        >>> DenseBlock(9, 3)(torch.rand(1, 9, 6, 6)).abs().max()  # the last convolution starts as zeros
        tensor(0., grad_fn=<MaxBackward1>)
    """

    def __init__(self, in_channels: int, out_channels: int, growth: int = 32) -> None:
        super().__init__()
        check_positive("DenseBlock", in_channels=in_channels, out_channels=out_channels, growth=growth)
        self.features = HiddenConvs(in_channels, growth, dilations=(1, 1, 1, 1))
        self.last = Conv3x3(self.features.out_channels, out_channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return _run_dense_block(x, self.features, None, self.last)

    def set_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Compute one 3x3 convolution, until trained on; see :meth:`CRDB.set_linear`."""
        _set_linear(self.last, weight, bias)


class CRDB(nn.Module):
    """IIRN's sub-network: three dilated, densely connected 3x3 convolutions and channel attention.

    Convolutions of dilation 1, 2 and 4 make f1, f2, f3; attention weighs [x, f1, f2, f3]; a last 3x3
    convolution makes the output. It is lighter than :class:`DenseBlock` and sees further.

    References:
        Mo & Chen 2021, *Image super-resolution via invertible image rescaling*, Fig. 3b.

    Shapes:
        ``(B, in_channels, H, W) -> (B, out_channels, H, W)``.

    Args:
        in_channels, out_channels: channels in and out.
        growth: filters of each hidden convolution.
        reduction: of the attention's MLP.
        dilation: of the second convolution; the third has its square. 1 takes dilation away.
        attention: whether there is channel attention; without it nothing is pooled globally.

    Raises:
        ConfigError: a number that is no positive integer, or ``attention`` that is neither true nor false.

    Example:
        >>> import torch
        >>> from invertible_rescaling import CRDB
        >>> CRDB(9, 3)(torch.rand(1, 9, 6, 6)).shape
        torch.Size([1, 3, 6, 6])
    """

    attention: ChannelAttention | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        growth: int = 32,
        reduction: int = 16,
        dilation: int = 2,
        attention: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "growth": growth}
        check_positive("CRDB", **sizes, dilation=dilation)
        if not isinstance(attention, bool):
            raise ConfigError(f"CRDB needs attention to be True or False, got {attention!r}")
        self.features = HiddenConvs(in_channels, growth, dilations=(1, dilation, dilation**2))
        channels = self.features.out_channels
        self.register_module("attention", ChannelAttention(channels, reduction) if attention else None)
        self.last = Conv3x3(channels, out_channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return _run_dense_block(x, self.features, self.attention, self.last)

    def set_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Compute exactly one 3x3 convolution, until trained on: the last layer reads the input alone.

        The attention's second layer becomes zero, so that it weighs every channel by 0.5, and the kernel is
        doubled to make up for it. The hidden convolutions stay as they are.

        Args:
            weight: ``(out_channels, in_channels, 3, 3)``.
            bias: ``(out_channels,)``.

        Raises:
            ShapeError: parameters of other shapes.

        Example:
            >>> import torch
            >>> from torch.nn.functional import conv2d
            >>> from invertible_rescaling import CRDB
            >>> block, weight, bias = CRDB(9, 3), torch.randn(3, 9, 3, 3), torch.zeros(3)
            >>> block.set_linear(weight, bias)
            >>> x = torch.rand(1, 9, 6, 6)
            >>> torch.allclose(block(x), conv2d(x, weight, bias, padding=1), atol=1e-5)
            True
        """
        if self.attention is None:
            _set_linear(self.last, weight, bias)
            return
        _set_linear(self.last, 2 * weight, bias)
        for parameter in self.attention.mlp[2].parameters():
            nn.init.zeros_(parameter)


class Conv(nn.Module):
    """One 3x3 convolution, of zeros at first: the sub-network of the ``linear_*`` models.

    A rescaler whose phi, rho and eta are single convolutions learns a *linear code*: phi adds the image's
    details to LR and eta filters them out again. It is what larger sub-networks learn first, and
    ``examples/train_div2k.py`` starts them from it. With no activation to halve its gain it is exact to fewer
    couplings than the others: at a gain of 0.5 to eight a stage in float32.

    Shapes:
        ``(B, in_channels, H, W) -> (B, out_channels, H, W)``.

    Args:
        in_channels, out_channels: channels in and out.

    Raises:
        ConfigError: a number that is no positive integer.

    Example:
        >>> import torch
        >>> from invertible_rescaling import Conv
        >>> sum(p.numel() for p in Conv(9, 3).parameters())
        246
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_positive("Conv", in_channels=in_channels, out_channels=out_channels)
        self.last = Conv3x3(in_channels, out_channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return conv3x3(x, self.last.weight, self.last.bias)

    def set_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Become the 3x3 convolution of these parameters; see :meth:`CRDB.set_linear`."""
        _set_linear(self.last, weight, bias)


class RRDB(nn.Module):
    """ESRGAN's residual-in-residual dense block: ``x + 0.2 * body(x)`` of three residual dense blocks.

    ``RRDB(64)`` is ESRGAN's own block, with as many channels out as in. Given ``out_channels``, as couplings
    give it, a 3x3 convolution of zeros projects the result, itself scaled by 0.2: unscaled, or without the
    projection where both numbers are equal, the skip connection would give couplings several times the
    gain of the other sub-networks, and sixteen of them no exact inverse in float32.

    References:
        Wang et al. 2018, *ESRGAN*, section 3.1, Fig. 4.

    Shapes:
        ``(B, in_channels, H, W) -> (B, out_channels, H, W)``.

    Args:
        in_channels, out_channels: channels in and out; without ``out_channels`` there is no projection.
        growth: filters of each hidden convolution.

    Example:
        >>> import torch
        >>> from invertible_rescaling import RRDB
        >>> RRDB(9, 3)(torch.rand(1, 9, 6, 6)).shape
        torch.Size([1, 3, 6, 6])
    """

    def __init__(self, in_channels: int, out_channels: int | None = None, growth: int = 32) -> None:
        super().__init__()
        check_positive("RRDB", in_channels=in_channels, growth=growth)
        self.blocks = nn.ModuleList(DenseBlock(in_channels, in_channels, growth) for _ in range(3))
        self.projection: Conv3x3 | None = None
        if out_channels is not None:
            check_positive("RRDB", out_channels=out_channels)
            self.projection = Conv3x3(in_channels, out_channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        body = x
        for block in self.blocks:
            body = body + _RESIDUAL_SCALE * block(body)
        out = x + _RESIDUAL_SCALE * body
        if self.projection is None:
            return out
        return _RESIDUAL_SCALE * conv3x3(out, self.projection.weight, self.projection.bias)


@torch.no_grad()
def _set_linear(last: Conv3x3, weight: Tensor, bias: Tensor) -> None:
    """Let a last convolution read the first channels, the input, by ``weight``, and nothing else."""
    filters, channels = last.weight.shape[:2]
    outs, ins, *size = weight.shape
    if size != [3, 3] or outs != filters or not 0 < ins <= channels or bias.shape != (outs,):
        raise ShapeError(
            f"a linear start needs a kernel ({filters}, in_channels, 3, 3) and as many biases, got "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    last.weight.zero_()
    last.weight[:, :ins] = weight
    last.bias.copy_(bias)
