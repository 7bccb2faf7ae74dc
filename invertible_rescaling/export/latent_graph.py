"""The latents that make nothing by chance, as ONNX graphs."""

import numpy as np
import torch
from torch import nn

from invertible_rescaling.export.flow_graph import add_haar
from invertible_rescaling.export.graph import Graph
from invertible_rescaling.layers.latents import (
    RATIO_BOUNDS,
    RATIO_EPS,
    GaussianLatent,
    WaveletLatent,
    ZeroLatent,
)

__all__ = ["add_latent"]


def add_latent(
    graph: Graph, latent: nn.Module, lr: str, channels: int, scale: int, dtype: torch.dtype
) -> str | None:
    """Add what a latent makes of LR; return its name, or ``None`` for a latent that has to be traced."""
    if type(latent) is ZeroLatent or (type(latent) is GaussianLatent and latent.std == 0):
        return _add_zeros(graph, lr, channels * (scale**2 - 1), dtype)
    if type(latent) is WaveletLatent and latent.wavelet == "haar":
        return _add_wavelet(graph, latent, lr, channels, scale, dtype)
    return None


def _add_zeros(graph: Graph, lr: str, channels: int, dtype: torch.dtype) -> str:
    def whole(*values: int) -> str:
        return graph.constant(np.array(values, np.int64))

    shape = graph.add("Shape", lr)
    batch, sides = (
        graph.add("Slice", shape, whole(0), whole(1)),
        graph.add("Slice", shape, whole(2), whole(4)),
    )
    wanted = graph.add("Concat", batch, whole(channels), sides, axis=0)
    return graph.add("Expand", graph.constant(torch.zeros(1, 1, 1, 1, dtype=dtype)), wanted)


def _add_wavelet(
    graph: Graph, latent: WaveletLatent, lr: str, channels: int, scale: int, dtype: torch.dtype
) -> str:
    state, width, factor = _add_bicubic(graph, lr, scale), channels, scale
    while factor > 1:
        factor //= 2
        state = add_haar(graph, state, width, dtype)
        low = lr if factor == 1 else _add_bicubic(graph, lr, factor)
        state = _add_correction(graph, latent.correction, state, low, (channels, width), dtype)
        width *= 4
    ends = (graph.constant(np.array([end], np.int64)) for end in (channels, width, 1))
    return graph.add("Slice", state, *ends)


def _add_correction(
    graph: Graph, correction: str, state: str, low: str, sizes: tuple[int, int], dtype: torch.dtype
) -> str:
    """Correct the details of the image's own channels, the first of each of the four bands."""
    channels, width = sizes
    if correction == "none":
        return state
    rest = (channels, width - channels) if width > channels else (channels,)
    parts = graph.split(state, rest * 4)
    own = parts[:: len(rest)]

    def number(value: float) -> str:
        return graph.constant(torch.tensor(value, dtype=dtype))

    if correction == "ratio":
        target, found = (graph.add("Add", value, number(RATIO_EPS)) for value in (low, own[0]))
        ratio = graph.add("Clip", graph.add("Div", target, found), *map(number, RATIO_BOUNDS))
        details = [graph.add("Mul", detail, ratio) for detail in own[1:]]
    else:
        missing = graph.add("Sub", low, own[0])
        details = [graph.add("Add", detail, missing) for detail in own[1:]]
    parts[len(rest) :: len(rest)] = details
    return graph.add("Concat", *parts, axis=1)


def _add_bicubic(graph: Graph, x: str, factor: int) -> str:
    """PyTorch's bicubic interpolation, not antialiased, to ``factor`` times the sides."""
    scales = graph.constant(np.array([1, 1, factor, factor], np.float32))
    how = {"mode": "cubic", "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "half_pixel"}
    return graph.add("Resize", x, "", scales, **how)
