"""Densely connected convolutions as one function: by the kernels, or by PyTorch's operations."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invertible_rescaling.kernels.dense import (
    DenseLayers,
    Pool,
    densely_connected,
    fill,
    group_size,
    project,
)
from invertible_rescaling.kernels.dense_backward import Gradients
from invertible_rescaling.kernels.dispatch import is_batched, is_ordinary
from invertible_rescaling.kernels.narrow_conv import conv3x3

__all__: list[str] = []  # for the sub-networks alone

_DTYPES = (torch.float32,)  # tests add float64, in which the kernels' gradients are held to the last digits
# Of a plane, whatever the batch: below, training is faster by PyTorch's operations. At this size, that of a
# patch of 144x144 behind two Haar steps, CRDB takes as long either way, and by the kernels 0.7 of the memory.
_LEAST_PIXELS = 36 * 36
_ALIGNED = (
    8  # channels, in which tensor cores take half precision; cuDNN pads other numbers in passes of its own
)


def dense_block(x: Tensor, layers: DenseLayers, pool: Pool | None = None) -> Tensor:
    """Densely connected 3x3 convolutions, channel attention and a last 3x3 convolution on all features.

    The kernels compute it where they fit: on CPU, in float32, on images large enough to pay, unless
    something traces, compiles or transforms the call. PyTorch's own operations do elsewhere.

    Args:
        x: ``(B, C, H, W)``.
        layers: the parameters.
        pool: given all features ``(B, features, H, W)``, returns the mean and maximum, each
            ``(B, features, 1, 1)``, for attention; by default those of each image.

    Returns:
        ``(B, out_channels, H, W)``.
    """
    if not _kernels_fit(x, layers):
        return _plain(x, layers, pool)
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in (x, *layers.tensors)):
        return _match_layout(x, densely_connected(x, layers, pool))
    if torch.is_autocast_enabled("cpu") or pool is not None:
        return _plain(x, layers, pool)
    return _match_layout(x, _DenselyConnected.apply(layers, x, *layers.tensors))  # type: ignore[no-untyped-call]


def _kernels_fit(x: Tensor, layers: DenseLayers) -> bool:
    return (
        is_ordinary(x)  # first, as compilers follow no further
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.shape[0] > 0
        and x.shape[2] * x.shape[3] >= max(1, _LEAST_PIXELS)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and x.dtype in _DTYPES
        and all(is_ordinary(t) and t.dtype == x.dtype for t in layers.tensors)
    )


def _match_layout(x: Tensor, out: Tensor) -> Tensor:
    """``out``, which is in ``channels_last``, row by row where ``x`` is, as convolutions return it."""
    return out.contiguous() if x.stride(3) == 1 and x.shape[1] > 1 and x.shape[3] > 1 else out


class _DenselyConnected(torch.autograd.Function):
    """Keeps one buffer of features per sub-network for the backward pass, and goes group by group."""

    @staticmethod
    def forward(ctx: Any, layers: DenseLayers, x: Tensor, *tensors: Tensor) -> Tensor:
        shape = (x.shape[0], layers.weights[-1].shape[0], *x.shape[2:])
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        buffer = x.new_empty(layers.space(x))
        statistics = []
        count = group_size(x)
        for group, space, result in zip(*(torch.split(t, count) for t in (x, buffer, out)), strict=True):
            mean, peak = fill(space, group, layers)
            project(space, layers.scale(mean, peak) if layers.attention else None, layers, result)
            statistics.append(torch.stack((mean, peak)) if layers.attention else x.new_empty(2, 0))
        ctx.layers = layers
        ctx.save_for_backward(buffer, torch.cat(statistics, 1), x, *tensors)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        buffer, statistics, x, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        layers = ctx.layers.using(tensors)
        if torch.is_grad_enabled() or is_batched(grad):
            # Gradients of gradients are asked for, or many gradients at once.
            with torch.enable_grad():
                # Aliases, so that a parameter that made x as well is not followed through x here.
                x, *tensors = (t.view_as(t) for t in (x, *tensors))
                out = _plain(x, layers.using(tensors))
                inputs = [t for t, wanted in zip((x, *tensors), needed, strict=True) if wanted]
                given = iter(torch.autograd.grad(out, inputs, grad, create_graph=True, allow_unused=True))
            return None, *(next(given) if wanted else None for wanted in needed)
        # Called inside an autocast region, too, gradients are as precise as the forward pass was.
        with torch.autocast("cpu", enabled=False):
            return None, *_from_buffer(layers, buffer, statistics, x, grad, needed)


def _from_buffer(
    layers: DenseLayers,
    buffer: Tensor,
    statistics: Tensor,
    x: Tensor,
    grad: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of ``x`` and of the parameters, group by group as the forward pass went."""
    sums = Gradients(layers, needed)
    count = group_size(x)
    grad = grad.contiguous(memory_format=torch.channels_last)
    pooled = torch.split(statistics, count, 1) if layers.attention else repeat(statistics)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    groups = zip(
        torch.split(buffer, count), pooled, torch.split(grad, count), torch.split(grad_x, count), strict=False
    )
    for space, known, group, found in groups:
        found.copy_(sums.add(space, known, group, x.shape[1]))
    return [grad_x if needed[0] else None, *sums.result()]


def _plain(x: Tensor, layers: DenseLayers, pool: Pool | None = None) -> Tensor:
    """The same sums by differentiable operations alone."""
    features = _in_autocasts_dtype(x)
    if features.is_cuda and features.dtype in (torch.bfloat16, torch.float16):
        return _aligned(features, layers, pool, _ALIGNED)
    for weight, bias, dilation in zip(layers.weights, layers.biases, layers.dilations, strict=False):
        found = F.conv2d(features, weight, bias, padding=dilation, dilation=dilation)
        features = torch.cat((features, F.leaky_relu(found, layers.slope)), dim=1)
    if layers.attention:
        features = features * layers.scale(*(pool or mean_and_maximum)(features))
    return conv3x3(features, layers.weights[-1], layers.biases[-1])


def _aligned(x: Tensor, layers: DenseLayers, pool: Pool | None, step: int) -> Tensor:
    """The same sums, with zero channels behind the features up to a multiple of ``step``.

    They join where features are joined anyway, so that they cost no pass over memory of their own.
    """
    zeros = x.new_zeros((x.shape[0], step, *x.shape[2:])).contiguous(memory_format=torch.channels_last)
    parts = [x]

    def joined() -> Tensor:
        missing = -sum(part.shape[1] for part in parts) % step
        return torch.cat((*parts, zeros[:, :missing]) if missing else parts, dim=1)

    for weight, bias, dilation in zip(layers.weights, layers.biases, layers.dilations, strict=False):
        features = joined()
        weight = _widened(weight, ins=features.shape[1])
        found = F.conv2d(features, weight, bias, padding=dilation, dilation=dilation)
        parts.append(F.leaky_relu(found, layers.slope))
    features, last = joined(), layers.weights[-1]
    filters, channels = last.shape[:2]
    if layers.attention:
        pooled = mean_and_maximum(features) if pool is None else pool(features[:, :channels])
        scale = layers.scale(*(each[:, :channels] for each in pooled))
        features = features * F.pad(scale, (0, 0, 0, 0, 0, features.shape[1] - channels))
    more = -filters % step
    weight = _widened(last, ins=features.shape[1], outs=filters + more)
    return F.conv2d(features, weight, F.pad(layers.biases[-1], (0, more)), padding=1)[:, :filters]


def _widened(weight: Tensor, *, ins: int, outs: int | None = None) -> Tensor:
    """A kernel with zeros for more channels and filters."""
    more = ins - weight.shape[1], 0 if outs is None else outs - weight.shape[0]
    return F.pad(weight, (0, 0, 0, 0, 0, more[0], 0, more[1])) if any(more) else weight


def mean_and_maximum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and maxima over the pixels, ``(B, C, H, W) -> (B, C, 1, 1)`` each; differentiable."""
    return x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)


def _in_autocasts_dtype(x: Tensor) -> Tensor:
    """Bring an input to autocast's dtype, as a convolution would; joined features are then not promoted."""
    kind = x.device.type
    half = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return x.to(torch.get_autocast_dtype(kind)) if half and x.dtype == torch.float32 else x
