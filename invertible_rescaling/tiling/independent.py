"""Images in independent tiles, and what both ways to work in tiles share.

Independent tiles each run through the whole bijection with some pixels around them. Memory beyond the images
going in and coming out depends on the tile alone; :mod:`~invertible_rescaling.tiling.exact` is the exact way.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import product

from torch import Tensor, nn

from invertible_rescaling.layers.base import InvertibleModule
from invertible_rescaling.tiling.receptive_field import (
    as_coupling,
    declared_receptive_radius,
    receptive_radius_of,
)
from invertible_rescaling.tiling.window import Window, windows

__all__: list[str] = []  # for the rescaler alone


def shrink(
    function: Callable[[Tensor], Tensor],
    hr: Tensor,
    out: Tensor,
    tile: int,
    overlap: int,
    scale: int,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Fill LR images ``out`` with ``function`` of windows of ``hr``; tile and overlap are in HR pixels."""
    for index, window in _of_all(out, tile, overlap, scale, progress):
        window.paste(function(window.crop(hr[index : index + 1], scale)), out[index : index + 1])


def enlarge(
    function: Callable[[Tensor, Tensor], Tensor],
    lr: Tensor,
    z: Callable[[int, Window], Tensor],
    out: Tensor,
    tile: int,
    overlap: int,
    scale: int,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Fill HR images ``out`` with ``function`` of windows of ``lr`` and of the latent ``z``."""
    for index, window in _of_all(lr, tile, overlap, scale, progress):
        image, result = lr[index : index + 1], out[index : index + 1]
        window.paste(function(window.crop(image), z(index, window)), result, scale)


def latent_in_windows(
    latent: nn.Module | Tensor, lr: Tensor, check: Callable[[Tensor, Tensor], None]
) -> Callable[[int, Window], Tensor]:
    """Return what gives the latent of a window of one of the images, as the whole image's latent has it.

    A module that declares ``receptive_radius``, in LR pixels, is asked for each window with as much around.
    Any other may depend on all of LR, or draw at random: it is asked once, for the whole batch.

    Args:
        latent: maps LR to z, or is z.
        lr: ``(B, C, h, w)``.
        check: raises where a z does not go with an LR.
    """
    if isinstance(latent, Tensor):
        check(lr, latent)
        return lambda index, window: window.crop(latent[index : index + 1])
    radius = declared_receptive_radius(latent)
    if radius is None:
        return latent_in_windows(latent(lr), lr, check)

    def of_window(index: int, window: Window) -> Tensor:
        around = window.around(radius, lr.shape[2], lr.shape[3])
        image = around.crop(lr[index : index + 1])
        z = latent(image)
        check(image, z)
        return around.inner(z)

    return of_window


def receptive_field(flow: Iterable[InvertibleModule], latent: nn.Module) -> int:
    """HR pixels to each side that a pixel of either direction depends on, at most, global pooling aside.

    Raises:
        ConfigError: how far a layer or a sub-network reaches is not known.
    """
    radius, scale = 0, 1
    for index, layer in enumerate(flow):
        coupling = as_coupling(index, layer)
        if coupling is None:
            radius += scale  # from anywhere in a cell of the finer state to the edges of the coarser one's
            scale *= 2
            continue
        radii = (max(map(receptive_radius_of, step.networks), default=0) for step in coupling.steps())
        radius += scale * sum(radii)
    return radius + scale * (declared_receptive_radius(latent) or 0)


def _of_all(
    lr: Tensor, tile: int, overlap: int, scale: int, progress: Callable[[float], None] | None
) -> Iterator[tuple[int, Window]]:
    """Images and their windows in LR pixels, of all of which the share that is done is told after each.

    An overlap that is no multiple of the scale grows.
    """
    found = list(windows(lr.shape[2], lr.shape[3], tile // scale, -(-overlap // scale)))
    for index, image in enumerate(product(range(lr.shape[0]), found), 1):
        yield image
        if progress is not None:
            progress(index / (lr.shape[0] * len(found)))
