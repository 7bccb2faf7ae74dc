"""The bijection in tiles, layer by layer: what the whole image gives, to rounding.

The state of a bijection has as many values as its image, and every layer can change it in place. A coupling
changes one half of the channels by what a window of the other says. A Haar step turns two rows of ``w``
pixels into one of ``w / 2`` with four times the channels; with channels last, ``(h, w, C)``, that is the same
stretch of memory. So one buffer the size of the image holds the state from the first layer to the last, and
couplings go over it in tiles that they see with as much around as their networks reach. Memory beyond the
images going in and coming out is that buffer, a float copy of one image of the batch, and what a tile takes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from invertible_rescaling.functional import haar_decompose, haar_reconstruct, quantize
from invertible_rescaling.kernels.workspace import scratch
from invertible_rescaling.layers.base import InvertibleModule
from invertible_rescaling.layers.coupling_step import CouplingStep
from invertible_rescaling.tiling.global_pooling import TiledEvaluation
from invertible_rescaling.tiling.receptive_field import as_coupling, receptive_radius_of
from invertible_rescaling.tiling.window import Window, windows

__all__: list[str] = []  # for the rescaler alone

# Changes a state (h, w, C), contiguous, with tiles of so many pixels a side; returns it in its new shape.
Step = Callable[[Tensor, int], Tensor]


def shrink(
    flow: Iterable[InvertibleModule],
    hr: Tensor,
    out: Tensor,
    tile: int,
    scale: int,
    bits: int,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Fill ``out`` with the rounded LR images of ``hr``.

    Args:
        flow: the layers.
        hr: ``(B, C, H, W)``, any H and W; up to multiples of the scale, the last row and column are repeated.
        out: ``(B, C, h, w)``.
        tile: HR pixels a side.
        scale: of the flow.
        bits: depth LR is rounded to.
        progress: called with the share that is done after every step of the flow.

    Raises:
        ConfigError: a layer cannot run in place, or how far a sub-network reaches is not known.
    """
    steps = [step for index, layer in enumerate(flow) for step in _forwards(index, layer)]
    channels, height, width = hr.shape[1], out.shape[2] * scale, out.shape[3] * scale
    buffer = torch.empty((height, width, channels), dtype=hr.dtype, device=hr.device)
    with scratch():
        for index, (image, result) in enumerate(zip(hr, out, strict=True)):
            state = _run(steps, _padded_into(buffer, image), tile, progress, (index, hr.shape[0]))
            low = state[..., :channels].permute(2, 0, 1)
            for window in windows(out.shape[2], out.shape[3], tile // scale, 0):
                window.paste(quantize(window.crop(low), bits), result)


def enlarge(
    flow: Iterable[InvertibleModule],
    lr: Tensor,
    z: Callable[[int, Window], Tensor],
    out: Tensor,
    tile: int,
    scale: int,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Fill ``out`` with the HR images of ``lr`` and ``z``.

    Args:
        flow: the layers of the other direction.
        lr: ``(B, C, h, w)``.
        z: the latent of a window of one image of the batch, ``(1, channels, height, width)``.
        out: ``(B, C, H, W)``, cut off from ``scale`` times LR's sides.
        tile: HR pixels a side.
        scale: of the flow.
        progress: as for :func:`shrink`.

    Raises:
        ConfigError: as :func:`shrink`.
    """
    steps = [step for index, layer in reversed(list(enumerate(flow))) for step in _backwards(index, layer)]
    channels, height, width = lr.shape[1:]
    buffer = torch.empty((height, width, channels * scale**2), dtype=lr.dtype, device=lr.device)
    with scratch():
        for index, (image, result) in enumerate(zip(lr, out, strict=True)):
            state = buffer.permute(2, 0, 1)[None]
            state[0, :channels] = image
            for window in windows(height, width, tile // scale, 0):
                window.paste(z(index, window), state[:, channels:])
            hr = _run(steps, buffer, tile, progress, (index, lr.shape[0])).permute(2, 0, 1)
            result.copy_(hr[:, : result.shape[1], : result.shape[2]]).clamp_(0, 1)


def _run(
    steps: Sequence[Step],
    state: Tensor,
    tile: int,
    progress: Callable[[float], None] | None,
    image: tuple[int, int],
) -> Tensor:
    """Take one image, the first number of so many, through all steps."""
    # Half of an HR tile's side is its side in the first stage. Later stages have tiles of as many pixels: in
    # smaller ones, what is seen around them would weigh more.
    side = max(1, tile // 2)
    index, images = image
    for done, step in enumerate(steps, 1):
        state = step(state, side)
        if progress is not None:
            progress((index + done / len(steps)) / images)
    return state


def _forwards(index: int, layer: InvertibleModule) -> list[Step]:
    coupling = as_coupling(index, layer)
    return [_decompose] if coupling is None else _in_place(coupling.steps())


def _backwards(index: int, layer: InvertibleModule) -> list[Step]:
    coupling = as_coupling(index, layer)
    return [_reconstruct] if coupling is None else _in_place(coupling.inverse_steps())


def _in_place(steps: Iterable[CouplingStep]) -> list[Step]:
    return [partial(_change, step, max(map(receptive_radius_of, step.networks), default=0)) for step in steps]


def _change(step: CouplingStep, halo: int, state: Tensor, side: int) -> Tensor:
    """One step of a coupling, in as many passes as its networks pool globally one after the other."""
    image = state.permute(2, 0, 1)[None]
    read, written = image[:, step.reads], image[:, step.writes]
    networks = [TiledEvaluation(network) for network in step.networks]
    due = True
    while due:
        for window in windows(state.shape[0], state.shape[1], side, halo):
            found = [network(window.crop(read), window.crop(written), window) for network in networks]
            made = [window.inner(output) for output in found if output is not None]
            if len(made) == len(networks):
                target = window.view(written)
                target.copy_(step.combine(target, *made))
        due = sum(network.finish_pass() for network in networks) > 0
    return state


def _decompose(state: Tensor, side: int) -> Tensor:
    height, width, channels = state.shape
    out = state.view(height // 2, width // 2, 4 * channels)
    for top, bottom in _pairs_of_rows(height, width, side):
        bands = haar_decompose(state[top:bottom].permute(2, 0, 1)[None])
        out[top // 2 : bottom // 2] = bands[0].permute(1, 2, 0)
    return out


def _reconstruct(state: Tensor, side: int) -> Tensor:
    height, width, channels = 2 * state.shape[0], 2 * state.shape[1], state.shape[2] // 4
    out = state.view(height, width, channels)
    for top, bottom in _pairs_of_rows(height, width, side):
        pixels = haar_reconstruct(state[top // 2 : bottom // 2].permute(2, 0, 1)[None])
        out[top:bottom] = pixels[0].permute(1, 2, 0)
    return out


def _pairs_of_rows(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    rows = max(2, side * side // width // 2 * 2)
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _padded_into(buffer: Tensor, image: Tensor) -> Tensor:
    """The buffer ``(h, w, C)`` with an image ``(C, H, W)`` in it, whose last row and column fill the rest."""
    height, width = image.shape[1:]
    buffer[:height, :width] = image.permute(1, 2, 0)
    buffer[:height, width:] = buffer[:height, width - 1 : width]
    buffer[height:] = buffer[height - 1 : height]
    return buffer
