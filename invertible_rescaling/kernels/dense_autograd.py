"""The entrance to the kernels for sub-networks, and their gradients."""

from collections.abc import Sequence
from dataclasses import replace
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
    usable,
)
from invertible_rescaling.kernels.narrow import is_narrow, weight_gradient
from invertible_rescaling.pooling import current_pooling

__all__ = ["run_dense"]


def run_dense(x: Tensor, features: Any, attention: Any, last: Any) -> Tensor | None:
    """Run a sub-network ``last(attention(features(x)))`` by the kernels; None where they do not fit.

    Args:
        x: ``(B, C, H, W)``.
        features: a module with ``convs`` and ``activation``.
        attention: a :class:`~invertible_rescaling.ChannelAttention`, or None.
        last: a 3x3 convolution.
    """
    convs = (*features.convs, last)
    around = [features, features.activation]
    mlp: tuple[Tensor, ...] | None = ()
    observe = None
    if attention is not None:
        around += attention.modules()
        mlp = _tensors_of(getattr(attention, "mlp", None))
        observe = current_pooling()
    if (
        mlp is None
        or type(features.activation) is not nn.LeakyReLU
        or not usable(x, convs)
        or any(map(_has_hooks, around))
    ):
        return None
    layers = DenseLayers(
        tuple(conv.weight for conv in convs),
        tuple(conv.bias for conv in convs),
        mlp,
        tuple(conv.dilation[0] for conv in features.convs),
        features.activation.negative_slope,
    )
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in (x, *layers.tensors)):
        return densely_connected(x, layers, observe)
    if torch.is_autocast_enabled("cpu") or observe is not None:
        return None
    out: Tensor = _DenselyConnected.apply(layers, x, *layers.tensors)  # type: ignore[no-untyped-call]
    return out


class _DenselyConnected(torch.autograd.Function):
    """Keeps one buffer of features per sub-network for the backward pass, and goes group by group."""

    @staticmethod
    def forward(ctx: Any, layers: DenseLayers, x: Tensor, *tensors: Tensor) -> Tensor:
        shape = (x.shape[0], layers.weights[-1].shape[0], *x.shape[2:])
        out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
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
        if torch.is_grad_enabled():  # gradients of gradients are asked for
            with torch.enable_grad():
                # Aliases, so that a parameter that made x as well is not followed through x here.
                x, *tensors = (t.view_as(t) for t in (x, *tensors))
                out = _plain(x, layers.using(tensors))
                inputs = [t for t, wanted in zip((x, *tensors), needed, strict=True) if wanted]
                given = iter(torch.autograd.grad(out, inputs, grad, create_graph=True, allow_unused=True))
            return None, *(next(given) if wanted else None for wanted in needed)
        sums = _Gradients(layers, needed[1:])
        count = group_size(x)
        grad = grad.contiguous(memory_format=torch.channels_last)
        pooled = torch.split(statistics, count, 1) if layers.attention else repeat(statistics)
        grads_x = [
            sums.add(space, known, group, x.shape[1])
            for space, known, group in zip(
                torch.split(buffer, count), pooled, torch.split(grad, count), strict=False
            )
        ]
        return None, torch.cat(grads_x) if needed[0] else None, *sums.result()


class _Gradients:
    """Sums, over the groups of a batch, of the gradients of all parameters."""

    def __init__(self, layers: DenseLayers, needed: Sequence[bool]) -> None:
        self.layers = layers
        biased = [index for index, bias in enumerate(layers.biases) if bias is not None]
        count = len(layers.weights)
        self.weights: list[Tensor | None] = [None] * count
        self.biases: list[Tensor | None] = [None] * count
        self.attention: list[Tensor | None] = [None] * len(layers.attention)
        self.wants_weight = list(needed[:count])
        self.wants_bias = [False] * count
        for index, wanted in zip(biased, needed[count:], strict=False):
            self.wants_bias[index] = wanted
        self.needed = needed
        self.biased = biased

    def result(self) -> list[Tensor | None]:
        """The sums, in the order of the parameters; None for those that need none."""
        found = [*self.weights, *(self.biases[index] for index in self.biased), *self.attention]
        return [sum_ if wanted else None for sum_, wanted in zip(found, self.needed, strict=True)]

    def add(self, buffer: Tensor, statistics: Tensor, grad: Tensor, known: int) -> Tensor:
        """Add one group's share, whose output has the gradient ``grad``; return its input's gradient."""
        layers, margin = self.layers, self.layers.margin
        features = buffer[:, margin:-margin].permute(0, 3, 1, 2)
        total = self._through_last(features, statistics, grad)
        end = features.shape[1]
        for index in reversed(range(len(layers.dilations))):
            weight, dilation = layers.weights[index], layers.dilations[index]
            start = end - weight.shape[0]
            own = torch.ops.aten.leaky_relu_backward(
                total[:, start:end], features[:, start:end], layers.slope, True
            )
            seen = features[:, :start].contiguous(memory_format=torch.channels_last)
            total[:, :start] += self._through(index, seen, own, weight, dilation)
            end = start
        return total[:, :known]

    def _through(self, index: int, seen: Tensor, grad: Tensor, weight: Tensor, dilation: int) -> Tensor:
        """The gradient of what a convolution reads; its weight's and bias's are added up."""
        mask = [True, self.wants_weight[index], self.wants_bias[index]]
        sizes, ones = [weight.shape[0]], [1, 1]
        of_input, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, seen, weight, sizes, ones, [dilation] * 2, [dilation] * 2, False, [0, 0], 1, mask
        )
        self.weights[index] = _plus(self.weights[index], of_weight)
        self.biases[index] = _plus(self.biases[index], of_bias)
        return of_input  # type: ignore[no-any-return]

    def _through_last(self, features: Tensor, statistics: Tensor, grad: Tensor) -> Tensor:
        """The gradient of all features, through attention and the last convolution."""
        if not self.layers.attention:
            total, of_weight = self._through_projection(features, self.layers.weights[-1], grad)
            self.weights[-1] = _plus(self.weights[-1], of_weight)
            return total
        with torch.enable_grad():
            mean, peak = (t.detach().requires_grad_() for t in statistics)
            mlp = tuple(tensor.detach().requires_grad_() for tensor in self.layers.attention)
            scale = replace(self.layers, attention=mlp).scale(mean, peak)
        total, of_scale = self._through_scale(features, scale.detach(), grad)
        of_mean, of_peak, *of_mlp = torch.autograd.grad(scale, [mean, peak, *mlp], of_scale)
        self.attention = [_plus(*pair) for pair in zip(self.attention, of_mlp, strict=True)]
        at_peak = features == peak.detach()
        share = of_mean / (features.shape[2] * features.shape[3])
        # As autograd does: all places that share the maximum share its gradient.
        return total.add_(torch.where(at_peak, share + of_peak / at_peak.sum((2, 3), keepdim=True), share))

    def _through_scale(self, features: Tensor, scale: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of all features and of attention's ``scale``."""
        weight = self.layers.weights[-1]
        if features.shape[0] > 1:
            of_scaled, of_weight = self._through_projection(features * scale, weight, grad)
            self.weights[-1] = _plus(self.weights[-1], of_weight)
            of_scale = (of_scaled * features).sum((2, 3), keepdim=True)
            return of_scaled.mul_(scale), of_scale
        # Of one image, attention belongs to the weights as well, and these are small.
        total, of_weight = self._through_projection(features, weight * scale, grad, always=True)
        self.weights[-1] = _plus(self.weights[-1], of_weight * scale)
        return total, (of_weight * weight).sum((0, 2, 3)).view_as(scale)

    def _through_projection(
        self, seen: Tensor, weight: Tensor, grad: Tensor, *, always: bool = False
    ) -> tuple[Tensor, Any]:
        """The gradients of what the last convolution reads and, if wanted, of its weight."""
        narrow = is_narrow(weight.shape[0])
        wants = always or self.wants_weight[-1]
        mask = [True, wants and not narrow, self.wants_bias[-1]]
        of_input, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, seen, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
        )
        self.biases[-1] = _plus(self.biases[-1], of_bias)
        return of_input, weight_gradient(seen, grad) if wants and narrow else of_weight


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


def _plus(sum_: Tensor | None, more: Tensor | None) -> Tensor | None:
    if sum_ is None or more is None:
        return more if sum_ is None else sum_
    return sum_.add_(more)


def _tensors_of(mlp: nn.Module | None) -> tuple[Tensor, ...] | None:
    """Weight, bias, weight and bias of channel attention's MLP, if it is as it was made."""
    if type(mlp) is not nn.Sequential or [type(layer) for layer in mlp] != [nn.Conv2d, nn.ReLU, nn.Conv2d]:
        return None
    tensors = tuple(mlp.parameters())
    return tensors if len(tensors) == 4 else None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
