"""Tiles and the windows around them."""

import torch
from hypothesis import given, strategies as st

from invertible_rescaling.tiling.window import windows


@given(
    height=st.integers(1, 30), width=st.integers(1, 30), side=st.integers(1, 12), overlap=st.integers(0, 9)
)
def test_every_pixel_belongs_to_one_tile(height: int, width: int, side: int, overlap: int) -> None:
    count = torch.zeros(height, width)
    for window in windows(height, width, side, overlap):
        top, bottom, left, right = window.tile
        assert window.pixels == (bottom - top) * (right - left)
        window.view(count).add_(1)
        assert window.crop(count).shape == (
            min(bottom + overlap, height) - max(top - overlap, 0),
            min(right + overlap, width) - max(left - overlap, 0),
        )
    assert torch.equal(count, torch.ones_like(count))


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    side=st.integers(1, 9),
    overlap=st.integers(0, 5),
    margin=st.integers(0, 5),
    scale=st.integers(1, 3),
)
def test_what_is_cut_and_placed_is_where_it_was(height, width, side, overlap, margin, scale) -> None:
    image = torch.arange(float(height * width * scale**2)).view(1, height * scale, width * scale)
    cropped = image[:, : height * scale - scale + 1, : width * scale - scale + 1]
    copy, crop = torch.zeros_like(image), torch.zeros_like(cropped)
    for window in windows(height, width, side, overlap):
        seen = window.crop(image, scale)
        assert torch.equal(window.inner(seen, scale), window.view(image, scale))
        around = window.around(margin, height, width)
        assert torch.equal(around.inner(around.crop(image, scale), scale), seen)
        window.paste(seen, copy, scale)
        window.paste(seen, crop, scale)
    assert torch.equal(copy, image)
    assert torch.equal(crop, cropped)
