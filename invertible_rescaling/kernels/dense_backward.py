"""Gradients of densely connected convolutions on CPU, from the features that the forward pass left.

oneDNN's gradient of a dilated convolution's weight runs at a third of the speed of a matrix product on
channels-last AVX2. That gradient is a product: of the features, as they lie in the buffer, and of the
output's gradient shifted to each column of taps; rows of taps are other rows of the buffer.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from invertible_rescaling.kernels.dense import DenseLayers, mean_of, strips
from invertible_rescaling.kernels.narrow_conv import (
    add_columns,
    columns_of,
    is_narrow,
    middle_column,
    weight_gradient,
)

__all__: list[str] = []  # for the sub-networks alone

_FEW_CHANNELS = 16  # with fewer, a product would be too thin to be quick


class Gradients:
    """Sums, over the groups of a batch, of the gradients of all parameters.

    Args:
        layers: of the forward pass.
        needed: whether the input and each of ``layers.tensors`` needs a gradient.
    """

    def __init__(self, layers: DenseLayers, needed: Sequence[bool]) -> None:
        self.layers = layers
        *hidden, last = layers.weights
        self.of_input, *self.needed = needed
        self.wants_weight = self.needed[: len(layers.weights)]
        # By rows of taps, as add_weight_gradient leaves them.
        self.taps = [weight.new_zeros(3, 1, weight.shape[1], 3 * weight.shape[0]) for weight in hidden]
        self.last = torch.zeros_like(last)
        self.biases = [torch.zeros_like(bias) for bias in layers.biases]
        self.attention = [torch.zeros_like(tensor) for tensor in layers.attention]

    def result(self) -> list[Tensor | None]:
        """The sums, in the order of the parameters; None for those that need none."""
        weights = [*(_unpacked(sums).squeeze(0) for sums in self.taps), self.last]
        found = [*weights, *self.biases, *self.attention]
        return [sum_ if wanted else None for sum_, wanted in zip(found, self.needed, strict=True)]

    def add(self, buffer: Tensor, statistics: Tensor, grad: Tensor, known: int) -> Tensor:
        """Add one group's share; return the gradient of its input.

        Args:
            buffer: ``(B, rows, W, features)`` as :func:`~invertible_rescaling.kernels.dense.fill` left it.
            statistics: what attention pooled, ``(2, B, features, 1, 1)``; anything without attention.
            grad: of the output, ``(B, O, H, W)`` in ``channels_last``.
            known: channels of the input.
        """
        layers, margin = self.layers, self.layers.margin
        features = buffer[:, margin:-margin].permute(0, 3, 1, 2)
        self.biases[-1] += _sum(grad)
        through = self._through_attention if layers.attention else self._through_last
        total = through(buffer, features, statistics, grad)
        end = features.shape[1]
        for index in reversed(range(len(layers.dilations))):
            weight, dilation = layers.weights[index], layers.dilations[index]
            start = end - weight.shape[0]
            own = torch.ops.aten.leaky_relu_backward(
                total[:, start:end], features[:, start:end], layers.slope, True
            ).contiguous(memory_format=torch.channels_last)
            self.biases[index] += _sum(own)
            if self.wants_weight[index]:
                self._add_weight(index, buffer, features[:, :start], own)
            if start > known or self.of_input:
                total[:, :start] += _transposed(own, weight, dilation)
            end = start
        return total[:, :known]

    def _add_weight(self, index: int, buffer: Tensor, seen: Tensor, grad: Tensor) -> None:
        weight, dilation = self.layers.weights[index], self.layers.dilations[index]
        if seen.shape[1] >= _FEW_CHANNELS:
            add_weight_gradient(self.taps[index], buffer, grad, dilation, self.layers.margin)
            return
        seen = seen.contiguous(memory_format=torch.channels_last)
        sides, mask = [dilation] * 2, [False, True, False]
        _, found, _ = torch.ops.aten.convolution_backward(
            grad, seen, weight, [0], [1, 1], sides, sides, False, [0, 0], 1, mask
        )
        self.taps[index] += found.permute(2, 1, 3, 0).flatten(2).unsqueeze(1)

    def _through_last(self, buffer: Tensor, features: Tensor, _statistics: Tensor, grad: Tensor) -> Tensor:
        """The gradient of all features, through the last convolution."""
        if self.wants_weight[-1]:
            self.last += _of_images(buffer, features, grad, self.layers.margin).sum(0)
        return _transposed(grad, self.layers.weights[-1], 1)

    def _through_attention(
        self, buffer: Tensor, features: Tensor, statistics: Tensor, grad: Tensor
    ) -> Tensor:
        """The gradient of all features, through attention and the last convolution.

        Attention scales whole channels, so that it may as well be said to scale the last convolution's
        weights, image by image: their gradients, which are small, are all that its own takes.
        """
        weight = self.layers.weights[-1]
        with torch.enable_grad():
            mean, peak = (t.detach().requires_grad_() for t in statistics)
            mlp = tuple(tensor.detach().requires_grad_() for tensor in self.layers.attention)
            scale = replace(self.layers, attention=mlp).scale(mean, peak)
        of_images = _of_images(buffer, features, grad, self.layers.margin)
        scales = scale.detach().transpose(1, 2).unsqueeze(1)  # (B, 1, 1, C, 1)
        self.last += (of_images * scales.transpose(2, 3)).sum(0)
        of_scale = (of_images * weight).sum((1, 3, 4)).view_as(scale)
        of_mean, of_peak, *of_mlp = torch.autograd.grad(scale, [mean, peak, *mlp], of_scale)
        for sum_, more in zip(self.attention, of_mlp, strict=True):
            sum_ += more
        at_peak = features == peak.detach()
        share = of_mean / (features.shape[2] * features.shape[3])
        # As autograd does: all places that share the maximum share its gradient.
        pooled = torch.where(at_peak, share + of_peak / at_peak.sum((2, 3), keepdim=True), share)
        return pooled.addcmul_(_transposed(grad, weight, 1), scale.detach())


def add_weight_gradient(sums: Tensor, buffer: Tensor, grad: Tensor, dilation: int, margin: int) -> None:
    """Add the gradient of a 3x3 convolution's weight, image by image.

    Args:
        sums: ``(3, B or 1, C, 3 * O)``: for each row of taps, channels by the columns of taps of all filters;
            one for all images, or one for each.
        buffer: ``(B, rows, W, features)``, what the convolution read in its first C features, with
            ``margin`` rows of zeros above and below.
        grad: of the output, ``(B, O, H, W)`` in ``channels_last``.
        dilation: of the convolution.
        margin: at least the dilation.
    """
    channels, (batch, filters, height, width) = sums.shape[2], grad.shape
    inside = max(0, width - dilation)
    for top, bottom in strips(height, width, 3 * filters * batch):
        rows = grad[:, :, top:bottom].permute(0, 2, 3, 1)
        columns = rows.new_empty(batch, bottom - top, width, 3, filters)
        columns[:, :, :inside, 0], columns[:, :, inside:, 0] = rows[:, :, width - inside :], 0
        columns[:, :, :, 1] = rows
        columns[:, :, width - inside :, 2], columns[:, :, : width - inside, 2] = rows[:, :, :inside], 0
        columns = columns.view(batch, -1, 3 * filters)
        for row in range(3):
            start = margin + top + (row - 1) * dilation
            seen = buffer[:, start : start + bottom - top].flatten(1, 2)[:, :, :channels].transpose(1, 2)
            found = torch.bmm(seen, columns)
            sums[row] += found if sums.shape[1] == batch else found.sum(0, keepdim=True)


def _of_images(buffer: Tensor, features: Tensor, grad: Tensor, margin: int) -> Tensor:
    """The gradients ``(B, O, C, 3, 3)`` of the last convolution's weight, for each image by itself."""
    filters = grad.shape[1]
    if is_narrow(filters):
        pairs = zip(torch.split(features, 1), torch.split(grad, 1), strict=True)
        return torch.stack([weight_gradient(*pair) for pair in pairs])
    sums = buffer.new_zeros(3, len(grad), features.shape[1], 3 * filters)
    add_weight_gradient(sums, buffer, grad, 1, margin)
    return _unpacked(sums)


def _unpacked(sums: Tensor) -> Tensor:
    """``(3, B, C, 3 * O)`` as weights ``(B, O, C, 3, 3)``."""
    rows, batch, channels, columns = sums.shape
    return sums.view(rows, batch, channels, 3, columns // 3).permute(1, 4, 2, 0, 3)


def _sum(x: Tensor) -> Tensor:
    """Over all but the channels of ``(B, C, H, W)`` in ``channels_last``."""
    return mean_of(x).sum((0, 2, 3)) * (x.shape[2] * x.shape[3])


def _transposed(grad: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The gradient of what a 3x3 convolution read."""
    turned = weight.flip(2, 3).transpose(0, 1)
    if dilation > 1 or not is_narrow(turned.shape[0]):
        return F.conv2d(grad, turned, padding=dilation, dilation=dilation)
    products = F.conv2d(grad, columns_of(turned), padding=(1, 0))
    out = middle_column(products, turned.shape[0]).clone()
    add_columns(products, out)
    return out
