"""Convolutions with a handful of filters, which leave most of a CPU's vector registers empty.

A 3x3 convolution with 3 filters runs at a fifth of the speed of one with 32, forwards and in its weights'
gradient. Its three columns of taps make three times as many filters of one column each, whose results are
shifted and added; and the gradient of all taps is one matrix product.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from invertible_rescaling.kernels.dispatch import is_batched, is_ordinary

__all__: list[str] = []  # for the sub-networks alone

_LANES = 16  # float32 values in the widest vector register
_FILLED, _MANY = 48, 32  # filters, and channels, up to and from which zeros gain more than they cost


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution of stride 1 that keeps height and width, quick on CPU with few filters too.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(O, C, 3, 3)``.
        bias: ``(O,)``.

    Returns:
        ``(B, O, H, W)``.
    """
    if (
        is_narrow(weight.shape[0])
        and is_ordinary(x)
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.dtype in (torch.float32, torch.float64)
        and is_ordinary(weight)
        and weight.dtype == x.dtype
        and not torch.is_autocast_enabled("cpu")
    ):
        out: Tensor = _NarrowConv.apply(x, weight)  # type: ignore[no-untyped-call]
        return out + bias.view(-1, 1, 1)
    return F.conv2d(x, weight, bias, padding=1)


def is_narrow(filters: int) -> bool:
    """Return whether three times as many filters would fill the vector registers much better."""
    return _occupancy(3 * filters) > 1.2 * _occupancy(filters)


def columns_of(weight: Tensor) -> Tensor:
    """The taps ``(O, C, 3, 3)`` as ``(3 * O, C, 3, 1)``: left, middle and right column, O filters each.

    Where they read many channels, filters of zeros behind them fill vector registers, which is quicker.
    """
    columns = weight.permute(3, 0, 1, 2).flatten(0, 1).unsqueeze(3)
    more = -columns.shape[0] % _LANES
    if more == 0 or columns.shape[0] > _FILLED or columns.shape[1] < _MANY:
        return columns
    filled: Tensor = F.pad(columns, (0, 0, 0, 0, 0, 0, 0, more))
    return filled


def middle_column(products: Tensor, filters: int) -> Tensor:
    """What the middle column of taps found, ``(B, O, H, W)``."""
    return products[:, filters : 2 * filters]


def add_columns(products: Tensor, out: Tensor) -> None:
    """Add what the left and right columns of taps found, ``products`` ``(B, 3 * O, ...)``, to ``out``."""
    filters = out.shape[1]
    left, right = products[:, :filters], products[:, 2 * filters : 3 * filters]
    out[..., 1:] += left[..., :-1]
    out[..., :-1] += right[..., 1:]


class _NarrowConv(torch.autograd.Function):
    """A 3x3 convolution with zero padding of 1, without bias; differentiable any number of times."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        products = F.conv2d(x, columns_of(weight), padding=(1, 0))
        out = middle_column(products, weight.shape[0]).clone()
        add_columns(products, out)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = F.conv2d(grad, weight.flip(2, 3).transpose(0, 1), padding=1)
        if ctx.needs_input_grad[1]:
            # torch.vmap, which batches gradients, has no rules for what the product takes.
            gradient = _plain_weight_gradient if is_batched(grad) else weight_gradient
            grad_weight = gradient(x, grad)
        return grad_x, grad_weight

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, weight_tangent: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        parts = []
        if x_tangent is not None:
            parts.append(F.conv2d(x_tangent, weight, padding=1))
        if weight_tangent is not None:
            parts.append(F.conv2d(x, weight_tangent, padding=1))
        return torch.stack(parts).sum(0)


def _plain_weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    shape = (grad.shape[1], x.shape[1], 3, 3)
    found: Tensor = conv2d_weight(x, shape, grad, padding=1)  # type: ignore[no-untyped-call]
    return found


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient ``(O, C, 3, 3)`` of all taps as one product: ``grad``, shifted to each tap, by ``x``."""
    filters, channels = grad.shape[1], x.shape[1]
    height, width = x.shape[2:]
    padded = F.pad(grad, (1, 1, 1, 1))
    shifted = [
        padded[:, :, 2 - row : 2 - row + height, 2 - column : 2 - column + width]
        for row in range(3)
        for column in range(3)
    ]
    taps = torch.cat(shifted, dim=1).permute(1, 0, 2, 3).flatten(1)  # (9 * O, B * H * W)
    pixels = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B * H * W, C)
    return (taps @ pixels).view(3, 3, filters, channels).permute(2, 3, 0, 1)


def _occupancy(filters: int) -> float:
    """How full the vector registers are that hold the filters of one pixel."""
    return filters / (-(-filters // _LANES) * _LANES)
