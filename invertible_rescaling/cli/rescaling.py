"""The commands ``downscale`` and ``upscale``: from their options to a run."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.images import MAX_PIXELS
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.networks import (
    JPEG_MODEL,
    ModelChoice,
    check_engine,
    device_of,
    jpeg_choice,
    load,
)
from invertible_rescaling.pipeline.paths import plan
from invertible_rescaling.pipeline.rescale import check_tile
from invertible_rescaling.pipeline.run import process
from invertible_rescaling.pipeline.tasks import RescaleOptions, is_lossy

__all__: list[str] = []  # for the command line alone


def rescale(
    direction: str,
    paths: list[Path],
    keep_suffix: bool,
    jobs: int | None,
    quiet: bool,
    *,
    model: str | None,
    weights: str | None,
    device: str,
    engine: str,
    tile: str,
    kind: str | None,
    size: str | None = None,
    allow_lossy: bool = False,
    max_pixels: int | None,
    **options: Any,
) -> int:
    """Run ``downscale`` or ``upscale`` and return the exit code; the parameters are the commands'.

    Raises:
        ConfigError: options do not fit together, or there is nothing to do.
    """
    found = plan(*_inputs_and_output(paths), kind, keep_suffix)
    wanted = RescaleOptions(
        direction,
        ModelChoice(model, weights, device_of(device), check_engine(engine)),
        tile=tile_of(tile),
        size=_size(size),
        max_pixels=max_pixels or MAX_PIXELS,
        **options,
    )
    console = Console.of(quiet)
    robust = None
    if direction == "downscale" and found.kind == "jpg":
        robust = jpeg_choice(wanted.choice, wanted.quality)
    if robust is not None:
        wanted = replace(wanted, choice=robust.choice, quality=robust.quality, subsampling=robust.subsampling)
        console.note(robust.cost)
        if robust.quality < robust.lowest:
            console.note(
                f"quality {robust.quality} is below {robust.lowest}, the lowest that they were trained for"
            )
    if wanted.quality is not None and found.kind not in ("jpg", "webp", "original"):
        raise ConfigError(f"--quality is for jpg and webp; {found.kind} is lossless")
    if direction == "downscale" and robust is None and is_lossy(found.kind, wanted.quality):
        lost = (
            f"{found.kind} is lossy: it changes the pixels of LR, and with them the detail that the model "
            "hid there, so that what comes back is often no better than bicubic; jpg has no alpha and 8 bits"
        )
        if not allow_lossy:
            jpeg = f", or --format jpg with --model {JPEG_MODEL}, which has weights for it"
            raise ConfigError(f"{lost}. Use png, or webp without --quality{jpeg}, or pass --allow-lossy")
        console.note(lost)
    if direction == "downscale" or model is not None or weights is not None:
        # What is wrong with these is wrong for all pictures.
        wanted.choice.check()
        check_tile(load(wanted.choice).model.scale, wanted.tile, "--tile")
    return process(found, wanted, jobs, console)


def _inputs_and_output(paths: list[Path]) -> tuple[list[Path], Path]:
    if len(paths) < 2:
        raise ConfigError(f"what is made of {paths[0]} needs a place: give IN and OUT")
    return paths[:-1], paths[-1]


def tile_of(wanted: str) -> int | None:
    """What ``--tile`` says: HR pixels, 0 for none, ``None`` for automatic.

    Raises:
        ConfigError: it is none of these.
    """
    if wanted in ("auto", "none"):
        return None if wanted == "auto" else 0
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) < 1:
        raise ConfigError(f"--tile takes auto, none or a number of pixels, got {wanted!r}")
    return int(wanted)


def _size(wanted: str | None) -> tuple[int, int] | None:
    if wanted is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", wanted)
    if not found:
        raise ConfigError(f"--size takes width and height, as in 1920x1080, got {wanted!r}")
    return int(found[2]), int(found[1])
