"""The demo: a recipe for minutes on a CPU, and a picture at the end."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from invertible_rescaling.evaluation import bicubic_rescale, crop_to_multiple, measure, model_rescale
from invertible_rescaling.images import backends, from_uint8, to_uint8
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.validation import ValidationImage

_CHOSEN: tuple[str, ...] = (
    "data",
    "val",
    "download",
    "steps",
    "fit",
    "start",
    "start_steps",
    "val_fraction",
    "batch_size",
    "patch",
    "sub_images",
    "sub_image_step",
    "lr",
    "ema",
    "warmup",
    "resume",
)
_CHOSEN += ("log_every", "validate_every", "save_every", "schedule", "loss_weights")
_CROP, _ZOOM, _MARGIN, _CAPTION = 112, 4, 12, 40
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def demo_options(options: TrainingConfig) -> TrainingConfig:
    """Short patches and a small model, in a folder of its own that no earlier run is in.

    Raises:
        OptionError: an option that the demo chooses itself was given, or there are several processes.
    """
    plain = TrainingConfig()
    given = [name for name in _CHOSEN if getattr(options, name) != getattr(plain, name)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise OptionError(f"--demo chooses its data and recipe itself; leave out {flags}, or --demo")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError("--demo runs in one process; start it without accelerate launch or torchrun")
    out = options.out if options.out != TrainingConfig().out else Path("runs/demo")
    numbered = (out if n == 1 else out.with_name(f"{out.name}-{n}") for n in range(1, 10_000))
    free = next(folder for folder in numbered if not folder.exists())
    # As on a CPU, whatever the machine: the picture is to come out alike everywhere.
    options = replace(options, precision="no") if options.precision == "auto" else options
    options = replace(options, compile="off") if options.compile == "auto" else options
    recipe = replace(
        options, batch_size=4, patch=48, start_steps=500, fit=60 * options.demo_minutes, log_every=20
    )
    return replace(recipe, out=free, blocks=options.blocks or (2, 2), validate_every=200, save_every=200)


def finish_demo(
    model: InvertibleRescaler, image: ValidationImage, path: Path, say: Callable[[str], None]
) -> None:
    """Draw the comparison and say what it shows."""
    figures = draw_comparison(model.eval().cpu(), image.hr, path, corner=(60, 170))
    say(
        f"{image.name}, which the model has not seen: bicubic down and up {figures['bicubic']:.2f} dB, "
        f"ours {figures['ours']:.2f} dB (PSNR, RGB); the picture is {str(path)!r}"
    )


def draw_comparison(
    model: InvertibleRescaler, hr: Tensor, path: Path, corner: tuple[int, int]
) -> dict[str, float]:
    """Write the comparison for one HR image, and return the PSNR of bicubic and of the model.

    Args:
        model: in evaluation mode.
        hr: ``(1, 3, H, W)`` uint8.
        path: a .png file.
        corner: row and column of the crop that is shown enlarged.
    """
    scale = model.scale
    image = crop_to_multiple(from_uint8(hr), scale)
    height, width = image.shape[2], image.shape[3]
    by_bicubic, small, bicubic = measure(bicubic_rescale(scale), image, scale)
    by_model, lr, ours = measure(model_rescale(model), image, scale)
    figures = {
        "bicubic": by_bicubic["psnr_rgb"],
        "ours": by_model["psnr_rgb"],
        "lr": by_model["lr_psnr_rgb"],
    }
    top, left = corner
    spot = (slice(None), slice(None), slice(top, top + _CROP), slice(left, left + _CROP))
    panels = [
        (_enlarge(image[spot]), f"HR, {width}x{height}"),
        (_enlarge(bicubic[spot]), f"bicubic down and up: {figures['bicubic']:.2f} dB"),
        (_enlarge(ours[spot]), f"ours: {figures['ours']:.2f} dB"),
    ]
    smalls = [(small, f"LR by bicubic, {lr.shape[3]}x{lr.shape[2]}"), (lr, "LR by ours (what is stored)")]
    _compose(panels, smalls).save(path)
    return figures


def _enlarge(crop: Tensor) -> Tensor:
    return interpolate(crop, scale_factor=_ZOOM, mode="nearest")


def _compose(panels: list[tuple[Tensor, str]], smalls: list[tuple[Tensor, str]]) -> Any:
    pillow, draw_module = backends.pillow("Image"), backends.pillow("ImageDraw")
    font = backends.pillow("ImageFont").load_default(size=20)
    side = _CROP * _ZOOM
    small_height = smalls[0][0].shape[2]
    width = len(panels) * (side + _MARGIN) + _MARGIN
    height = side + small_height + 2 * _CAPTION + 3 * _MARGIN
    sheet = pillow.new("RGB", (width, height), _PAPER)
    draw = draw_module.Draw(sheet)
    rows = ((panels, _MARGIN, side), (smalls, side + _CAPTION + 2 * _MARGIN, small_height))
    for row, top, tall in rows:
        for column, (image, caption) in enumerate(row):
            left = _MARGIN + column * (side + _MARGIN)
            sheet.paste(pillow.fromarray(_pixels(image)), (left, top))
            draw.text((left, top + tall + 6), caption, fill=_INK, font=font)
    return sheet


def _pixels(image: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = to_uint8(image[0]).permute(1, 2, 0).contiguous().numpy()
    return pixels
