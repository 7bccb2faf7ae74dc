"""Inference on CPU: the sub-networks' own sums, arranged for speed.

Three things make the plain modules slow there: concatenations of ever longer feature maps, large fresh
tensors whose pages the system hands out one by one, and convolutions with a handful of filters, which leave
most of a vector register empty. Here all features of a sub-network share one buffer, work goes on in strips
of rows that stay in the cache, attention is folded into the weights that follow it, and narrow convolutions
compute their three columns of taps as filters of their own. Results equal the plain modules' up to rounding.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["densely_connected", "inference_kernels", "may_overwrite", "scratch", "usable"]

Attention = Callable[[Tensor, Tensor], Tensor]

_STRIP_VALUES = 1 << 20  # of a strip's widest input: 4 MB in float32, which stays in the cache
_LEAST_ROWS = 16
_LEAST_PIXELS = 24 * 24  # below, the calls cost more than the sums
_LANES = 16  # float32 values in the widest vector register

_local = threading.local()


@contextmanager
def inference_kernels(enabled: bool) -> Iterator[None]:
    """Switch the kernels on or off within a block, for this thread; off leaves the plain modules.

    Example:
        >>> import torch
        >>> from invertible_rescaling import CRDB
        >>> from invertible_rescaling.kernels import inference_kernels
        >>> with torch.no_grad(), inference_kernels(False):
        ...     CRDB(9, 3)(torch.rand(1, 9, 64, 64)).shape
        torch.Size([1, 3, 64, 64])
    """
    before = getattr(_local, "enabled", True)
    _local.enabled = enabled
    try:
        yield
    finally:
        _local.enabled = before


@contextmanager
def scratch() -> Iterator[None]:
    """Let all sub-networks that run within the block, in this thread, share one feature buffer."""
    if getattr(_local, "buffers", None) is not None:
        yield
        return
    _local.buffers = {}
    try:
        yield
    finally:
        _local.buffers = None


def may_overwrite(x: Tensor) -> bool:
    """Whether results may be written into parts of a tensor: nothing differentiates or traces the call."""
    return (
        getattr(_local, "enabled", True)
        and not torch.is_grad_enabled()
        and type(x) is Tensor
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and torch.autograd.forward_ad._current_level < 0
    )


def usable(x: Tensor, convs: Iterable[nn.Module]) -> bool:
    """Whether :func:`densely_connected` may stand in for these convolutions on this input.

    It may on CPU, in float32 (or under autocast), on images large enough to pay, as long as nobody has hooks
    on the convolutions or has put others in their place.
    """
    return (
        may_overwrite(x)
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.dim() == 4
        and x.shape[0] > 0
        and x.shape[2] * x.shape[3] >= _LEAST_PIXELS
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(_is_untouched(conv) for conv in convs)
    )


def densely_connected(
    x: Tensor, convs: Sequence[nn.Conv2d], slope: float, attention: Attention | None, last: nn.Conv2d
) -> Tensor:
    """Densely connected 3x3 convolutions, then attention and a last 3x3 convolution on all features.

    Args:
        x: ``(B, C, H, W)``, in any memory format.
        convs: each reads ``x`` and the features of those before it, at its own dilation.
        slope: of the LeakyReLU behind each of them.
        attention: makes ``(1, features, 1, 1)`` weights of the features' mean and maximum.
        last: reads all features.

    Returns:
        ``(B, last.out_channels, H, W)``, in ``channels_last``; in autocast's dtype under autocast.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    batch, _, height, width = x.shape
    out = torch.empty(
        (batch, last.out_channels, height, width), dtype=dtype, memory_format=torch.channels_last
    )
    parts = [(conv.weight.to(dtype), _bias(conv, dtype), conv.dilation[0]) for conv in convs]
    margin = max(dilation for _, _, dilation in parts)
    weight, bias = last.weight.to(dtype), _bias(last, dtype)
    buffer = _take((1, height + 2 * margin, width, last.in_channels), dtype)
    # Convolutions pad the columns themselves and find the rows above and below in the buffer.
    buffer[:, :margin], buffer[:, -margin:] = 0, 0
    features = buffer.permute(0, 3, 1, 2)
    strips = _strips(height, width, last.in_channels)
    for sample, result in zip(torch.split(x, 1), torch.split(out, 1), strict=True):
        mean, peak = _fill(features, sample, parts, slope, strips, margin, pooled=attention is not None)
        scaled = weight if attention is None else weight * attention(mean, peak).to(dtype)
        _project(features, scaled, bias, result, strips, margin)
    return out


def _fill(
    features: Tensor,
    x: Tensor,
    parts: Sequence[tuple[Tensor, Tensor | None, int]],
    slope: float,
    strips: Sequence[tuple[int, int]],
    margin: int,
    *,
    pooled: bool,
) -> tuple[Tensor, Tensor]:
    """Fill the buffer with the input and all features; return their means and maxima ``(1, C, 1, 1)``."""
    height, width = x.shape[2:]
    inside = features[:, :, margin : margin + height]
    known = x.shape[1]
    inside[:, :known] = x
    means = [inside[:, :known].mean((2, 3), keepdim=True)] if pooled else []
    peaks = [inside[:, :known].amax((2, 3), keepdim=True)] if pooled else []
    for weight, bias, dilation in parts:
        total, peak = [], []
        for top, bottom in strips:
            rows = features[:, :known, margin + top - dilation : margin + bottom + dilation]
            strip = F.conv2d(rows, weight, bias, padding=(0, dilation), dilation=dilation)
            strip = F.leaky_relu(strip, slope, inplace=True)
            inside[:, known : known + strip.shape[1], top:bottom] = strip
            if pooled:
                total.append(strip.sum((2, 3), keepdim=True, dtype=torch.float32))
                peak.append(strip.amax((2, 3), keepdim=True))
        known += weight.shape[0]
        if pooled:
            means.append((torch.cat(total).sum(0, keepdim=True) / (height * width)).to(weight.dtype))
            peaks.append(torch.cat(peak).amax(0, keepdim=True))
    return (torch.cat(means, 1), torch.cat(peaks, 1)) if pooled else (features, features)


def _project(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    strips: Sequence[tuple[int, int]],
    margin: int,
) -> None:
    """The last convolution, from the buffer into ``out``."""
    filters = weight.shape[0]
    narrow = _occupancy(3 * filters) > 1.2 * _occupancy(filters)
    columns = weight.permute(3, 0, 1, 2).flatten(0, 1).unsqueeze(3) if narrow else weight
    for top, bottom in strips:
        rows = features[:, :, margin + top - 1 : margin + bottom + 1]
        target = out[:, :, top:bottom]
        if narrow:
            left, middle, right = torch.unflatten(F.conv2d(rows, columns), 1, (3, filters)).unbind(1)
            target.copy_(middle) if bias is None else torch.add(middle, bias.view(-1, 1, 1), out=target)
            target[..., 1:] += left[..., :-1]
            target[..., :-1] += right[..., 1:]
        else:
            target.copy_(F.conv2d(rows, weight, bias, padding=(0, 1)))


def _occupancy(filters: int) -> float:
    """How full the vector registers are that hold the filters of one pixel."""
    return filters / (-(-filters // _LANES) * _LANES)


def _strips(height: int, width: int, channels: int) -> list[tuple[int, int]]:
    rows = max(_LEAST_ROWS, _STRIP_VALUES // (width * channels))
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _take(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    """A buffer of this shape with anything in it: the block's own if :func:`scratch` is active."""
    buffers: dict[tuple[torch.dtype, bool], Tensor] | None = getattr(_local, "buffers", None)
    count = math.prod(shape)
    if buffers is None:
        return torch.empty(shape, dtype=dtype)
    key = (dtype, torch.is_inference_mode_enabled())
    if key not in buffers or buffers[key].numel() < count:
        buffers[key] = torch.empty(count, dtype=dtype)
    return buffers[key][:count].view(shape)


def _bias(conv: nn.Conv2d, dtype: torch.dtype) -> Tensor | None:
    return None if conv.bias is None else conv.bias.to(dtype)


def _is_untouched(conv: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.weight.dtype == torch.float32
        and not conv._forward_hooks
        and not conv._forward_pre_hooks
    )
