"""Pictures side by side on one sheet, with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from invertible_rescaling.images.rgb import to_uint8

__all__ = ["Panel", "compose"]

SIDE = 192  # of every panel, in pixels of the sheet
MARGIN, CAPTION = 10, 44
INK, PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """A square picture ``(1, 3, h, w)`` in [0, 1], shown with whole pixels, and what stands under it."""

    picture: Tensor
    caption: str


def compose(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """All rows on one sheet."""
    width = MARGIN + max(len(row) for row in rows) * (SIDE + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + len(rows) * (SIDE + CAPTION + MARGIN)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for row, panels_ in enumerate(rows):
        top = MARGIN + row * (SIDE + CAPTION + MARGIN)
        for column, panel in enumerate(panels_):
            left = MARGIN + column * (SIDE + MARGIN)
            sheet.paste(Image.fromarray(_pixels(panel.picture)), (left, top))
            draw.multiline_text((left, top + SIDE + 4), panel.caption, fill=INK, font=font, spacing=3)
    return sheet


def _pixels(picture: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Enlarged by a whole number as far as it fits, on paper."""
    factor = max(1, SIDE // max(picture.shape[2:]))
    enlarged = interpolate(picture, scale_factor=factor, mode="nearest")
    sheet = torch.ones(1, 3, SIDE, SIDE)
    top, left = ((SIDE - length) // 2 for length in enlarged.shape[2:])
    sheet[..., top : top + enlarged.shape[2], left : left + enlarged.shape[3]] = enlarged
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = to_uint8(sheet[0]).permute(1, 2, 0).contiguous().numpy()
    return pixels
