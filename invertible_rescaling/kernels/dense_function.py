"""The entrance to the kernels for sub-networks, and their gradients."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertible_rescaling.kernels.dense import (
    DenseLayers,
    densely_connected,
    fill,
    group_size,
    project,
)
from invertible_rescaling.kernels.dense_backward import Gradients
from invertible_rescaling.kernels.dispatch import is_batched
from invertible_rescaling.kernels.guard import mixes_channels, usable
from invertible_rescaling.pooling import current_pooling

__all__: list[str] = []  # for the sub-networks alone


def run_dense(x: Tensor, features: Any, attention: Any, last: Any) -> Tensor | None:
    """Run a sub-network ``last(attention(features(x)))`` by the kernels; None where they do not fit.

    Args:
        x: ``(B, C, H, W)``.
        features: a module with ``convs`` and ``activation``.
        attention: a :class:`~invertible_rescaling.ChannelAttention`, or None.
        last: a 3x3 convolution.
    """
    convs = (*features.convs, last)
    mlp = () if attention is None else _tensors_of(attention.mlp)
    around = (features, features.convs, *(() if attention is None else attention.modules()))
    if mlp is None or not usable(x, convs, features.activation, around):
        return None
    layers = DenseLayers(
        tuple(conv.weight for conv in convs),
        tuple(conv.bias for conv in convs),
        mlp,
        tuple(conv.dilation[0] for conv in features.convs),
        features.activation.negative_slope,
    )
    observe = None if attention is None else current_pooling()
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in (x, *layers.tensors)):
        return _laid_out_like(x, densely_connected(x, layers, observe))
    if torch.is_autocast_enabled("cpu") or observe is not None:
        return None
    return _laid_out_like(x, _DenselyConnected.apply(layers, x, *layers.tensors))  # type: ignore[no-untyped-call]


def _laid_out_like(x: Tensor, out: Tensor) -> Tensor:
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


def _plain(x: Tensor, layers: DenseLayers) -> Tensor:
    """The same sums by differentiable operations alone."""
    features = x
    for weight, bias, dilation in zip(layers.weights[:-1], layers.biases, layers.dilations, strict=False):
        found = F.conv2d(features, weight, bias, padding=dilation, dilation=dilation)
        features = torch.cat((features, F.leaky_relu(found, layers.slope)), dim=1)
    if layers.attention:
        mean, peak = features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        features = features * layers.scale(mean, peak)
    return F.conv2d(features, layers.weights[-1], layers.biases[-1], padding=1)


def _tensors_of(mlp: nn.Module) -> tuple[Tensor, ...] | None:
    """Weight, bias, weight and bias of channel attention's MLP, if it is as it was made."""
    if type(mlp) is not nn.Sequential or len(mlp) != 3 or type(mlp[1]) is not nn.ReLU:
        return None
    if not (mixes_channels(mlp[0]) and mixes_channels(mlp[2])):
        return None
    tensors = tuple(mlp.parameters())
    return tensors if len(tensors) == 4 else None
