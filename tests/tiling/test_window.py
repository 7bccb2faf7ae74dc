"""Tiles and the windows around them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from invertible_rescaling.tiling.window import windows


@given(
    height=st.integers(1, 30), width=st.integers(1, 30), side=st.integers(1, 12), overlap=st.integers(0, 9)
)
def test_every_pixel_belongs_to_one_tile(height: int, width: int, side: int, overlap: int) -> None:
    count = torch.zeros(height, width)
    for window in windows(height, width, side, overlap):
        top, bottom, left, right = window.tile
        assert window.pixels == (bottom - top) * (right - left)
        window.target(count).add_(1)
        assert window.cut(count).shape == (
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
    grain=st.integers(1, 3),
)
def test_what_is_cut_and_placed_is_where_it_was(height, width, side, overlap, margin, grain) -> None:
    image = torch.arange(float(height * width * grain**2)).view(1, height * grain, width * grain)
    cropped = image[:, : height * grain - grain + 1, : width * grain - grain + 1]
    copy, crop = torch.zeros_like(image), torch.zeros_like(cropped)
    for window in windows(height, width, side, overlap):
        seen = window.cut(image, grain)
        assert torch.equal(window.own(seen, grain), window.target(image, grain))
        around = window.around(margin, height, width)
        assert torch.equal(around.own(around.cut(image, grain), grain), seen)
        window.place(seen, copy, grain)
        window.place(seen, crop, grain)
    assert torch.equal(copy, image)
    assert torch.equal(crop, cropped)
