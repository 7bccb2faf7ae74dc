"""Densely connected convolutions on CPU, forwards.

Three things make PyTorch's operations slow there: concatenations of ever longer feature maps, large fresh
tensors whose pages the system hands out one by one, and convolutions with a handful of filters, which
leave most of a vector register empty. Here all features of a sub-network share one buffer, work goes on in
strips of rows that stay in the cache, attention is folded into the weights that follow it, and
convolutions with few filters run as in :mod:`~invertible_rescaling.kernels.narrow_conv`. Results equal those
of PyTorch's operations up to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from invertible_rescaling.kernels.narrow_conv import add_columns, columns_of, is_narrow, middle_column
from invertible_rescaling.kernels.workspace import take

__all__: list[str] = []  # for the sub-networks alone

Pool = Callable[[Tensor], tuple[Tensor, Tensor]]

_STRIP_VALUES = 1 << 22  # of a strip's widest input, for each thread: 16 MB in float32
_LEAST_ROWS = 16
_GROUP_PIXELS = 160 * 160  # of the small images that go together


@dataclass(frozen=True)
class DenseLayers:
    """Weights and biases of densely connected 3x3 convolutions and of the last one, which reads them all.

    Args:
        weights, biases: of the hidden convolutions, then of the last.
        attention: weight, bias, weight and bias of the MLP of channel attention, or nothing.
        dilations: of the hidden convolutions.
        slope: of the LeakyReLU behind each of these, at least 0.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    dilations: tuple[int, ...]
    slope: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Weights, biases, and the attention's."""
        return *self.weights, *self.biases, *self.attention

    def using(self, tensors: Sequence[Tensor]) -> "DenseLayers":
        """The same layers with other tensors, in the order of :attr:`tensors`."""
        given = iter(tensors)
        return replace(
            self,
            weights=tuple(next(given) for _ in self.weights),
            biases=tuple(next(given) for _ in self.biases),
            attention=tuple(next(given) for _ in self.attention),
        )

    def scale(self, mean: Tensor, peak: Tensor) -> Tensor:
        """Channel attention's weights ``(B, C, 1, 1)`` for the features' means and maxima."""
        first, first_bias, second, second_bias = self.attention

        def mlp(pooled: Tensor) -> Tensor:
            hidden = F.relu(F.linear(pooled.flatten(1), first.flatten(1), first_bias))
            return F.linear(hidden, second.flatten(1), second_bias)

        return torch.sigmoid(mlp(mean) + mlp(peak)).view_as(mean)

    @property
    def margin(self) -> int:
        """Rows of zeros that the widest convolution reads above and below the image."""
        return max(self.dilations)

    def space(self, x: Tensor) -> tuple[int, int, int, int]:
        """The shape ``(B, rows, W, features)`` of a buffer for the input and all features."""
        batch, _, height, width = x.shape
        return batch, height + 2 * self.margin, width, self.weights[-1].shape[1]


def densely_connected(x: Tensor, layers: DenseLayers, pool: Pool | None = None) -> Tensor:
    """Densely connected 3x3 convolutions, then attention and a last 3x3 convolution on all features.

    Args:
        x: ``(B, C, H, W)``, in any memory format.
        layers: each reads ``x`` and the features of those before it.
        pool: given all features ``(B, features, H, W)``, returns the mean and maximum for attention; by
            default those of each image.

    Returns:
        ``(B, out_channels, H, W)``, in ``channels_last``; in autocast's dtype under autocast.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    layers = layers.using([tensor.to(dtype) for tensor in layers.tensors])
    filters = layers.weights[-1].shape[0]
    shape = (x.shape[0], filters, *x.shape[2:])
    out = torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    count = group_size(x)
    buffer = take((min(count, x.shape[0]), *layers.space(x)[1:]), dtype)
    for group, result in zip(torch.split(x, count), torch.split(out, count), strict=True):
        space = buffer[: group.shape[0]]
        mean, peak = fill(space, group, layers, pool=pool is None)
        if pool is not None:
            mean, peak = pool(space.permute(0, 3, 1, 2)[:, :, layers.margin : -layers.margin])
        project(space, layers.scale(mean, peak) if layers.attention else None, layers, result)
    return out


def group_size(x: Tensor) -> int:
    """How many images ``(H, W)`` go through the layers together: one if large, more if small."""
    return max(1, _GROUP_PIXELS // (x.shape[2] * x.shape[3]))


def fill(buffer: Tensor, x: Tensor, layers: DenseLayers, *, pool: bool = True) -> tuple[Tensor, Tensor]:
    """Fill a buffer ``(B, rows, W, features)`` with images ``(B, C, H, W)`` and all their features.

    Returns:
        The features' means and maxima ``(B, features, 1, 1)`` for attention; anything where there is none, or
        where ``pool`` is False.
    """
    pooled = pool and bool(layers.attention)
    margin, (height, width) = layers.margin, x.shape[2:]
    # Convolutions pad the columns themselves and find the rows above and below in the buffer.
    buffer[:, :margin], buffer[:, -margin:] = 0, 0
    features = buffer.permute(0, 3, 1, 2)
    inside = features[:, :, margin : margin + height]
    known = x.shape[1]
    inside[:, :known] = x
    means = [mean_of(x).to(buffer.dtype)] if pooled else []
    peaks = [peak_of(x).to(buffer.dtype)] if pooled else []
    parts = strips(height, width, buffer.shape[3])
    for weight, bias, dilation in zip(layers.weights[:-1], layers.biases, layers.dilations, strict=False):
        sums, tops = [], []
        for top, bottom in parts:
            rows = features[:, :known, margin + top - dilation : margin + bottom + dilation]
            strip = F.conv2d(rows, weight, bias, padding=(0, dilation), dilation=dilation)
            F.leaky_relu(strip, layers.slope, inplace=True)
            inside[:, known : known + strip.shape[1], top:bottom] = strip
            if pooled:
                sums.append(mean_of(strip) * (bottom - top))
                tops.append(peak_of(strip))
        known += weight.shape[0]
        if pooled:
            means.append((torch.stack(sums).sum(0) / height).to(weight.dtype))
            peaks.append(torch.stack(tops).amax(0))
    return (torch.cat(means, 1), torch.cat(peaks, 1)) if pooled else (features, features)


def mean_of(x: Tensor) -> Tensor:
    """Means over the pixels, ``(B, C, H, W) -> (B, C, 1, 1)``, in float32 at least."""
    dtype, pixels = torch.promote_types(x.dtype, torch.float32), _pixel_by_pixel(x)
    if pixels is None:
        return x.mean((2, 3), keepdim=True, dtype=dtype)
    batch, width, channels = x.shape[0], x.shape[3], x.shape[1]
    means = pixels.mean(1, dtype=dtype).view(batch, width, channels).mean(1)
    return means.view(batch, channels, 1, 1)


def peak_of(x: Tensor) -> Tensor:
    """Maxima over the pixels, ``(B, C, H, W) -> (B, C, 1, 1)``."""
    pixels = _pixel_by_pixel(x)
    if pixels is None:
        return x.amax((2, 3), keepdim=True)
    batch, width, channels = x.shape[0], x.shape[3], x.shape[1]
    return pixels.amax(1).view(batch, width, channels).amax(1).view(batch, channels, 1, 1)


def _pixel_by_pixel(x: Tensor) -> Tensor | None:
    """``(B, H, W * C)``, over whose rows reductions are ten times as fast; None where it would be a copy."""
    pixels = x.permute(0, 2, 3, 1)
    return pixels.flatten(2) if pixels.is_contiguous() else None


def project(buffer: Tensor, scale: Tensor | None, layers: DenseLayers, out: Tensor) -> None:
    """Attention's ``scale`` and the last convolution, from a buffer into ``out`` ``(B, O, H, W)``."""
    margin, bias, (height, width) = layers.margin, layers.biases[-1], out.shape[2:]
    features, weight = buffer.permute(0, 3, 1, 2), layers.weights[-1]
    if scale is not None and buffer.shape[0] == 1:
        weight, scale = weight * scale, None  # of one image, attention belongs to the weights as well
    narrow = is_narrow(weight.shape[0])
    taps = columns_of(weight) if narrow else weight
    for top, bottom in strips(height, width, buffer.shape[3]):
        rows = features[:, :, margin + top - 1 : margin + bottom + 1]
        rows = rows if scale is None else rows * scale
        target = out[:, :, top:bottom]
        if narrow:
            products = F.conv2d(rows, taps)
            middle = middle_column(products, out.shape[1])
            torch.add(middle, bias.view(-1, 1, 1), out=target)
            add_columns(products, target)
        else:
            target.copy_(F.conv2d(rows, taps, bias, padding=(0, 1)))


def strips(height: int, width: int, channels: int) -> list[tuple[int, int]]:
    """Rows ``[top, bottom)`` of strips that stay in the cache, of an image of so many channels."""
    rows = max(_LEAST_ROWS, _STRIP_VALUES * torch.get_num_threads() // (width * channels))
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]
