"""Training patches: reproducible, really from the images, the same for HR and LR and on every device."""

import hashlib

import pytest
import torch
from hypothesis import given, strategies as st

from invertible_rescaling.errors import ConfigError, RescalingError, ShapeError
from invertible_rescaling.training import ImagePair, PatchSampler, sub_image_corners
from tests.strategies import seeds


def _coordinates(height: int, width: int, number: int) -> torch.Tensor:
    """An image whose pixels say where they are: row, column and number of the image."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((rows, columns, torch.full_like(rows, number))).to(torch.uint8)


def _pairs(sizes: list[tuple[int, int]], scale: int, with_lr: bool) -> list[ImagePair]:
    return [
        ImagePair(
            _coordinates(height, width, number),
            _coordinates(height // scale, width // scale, number) if with_lr else None,
        )
        for number, (height, width) in enumerate(sizes)
    ]


def _symmetries(patch: torch.Tensor) -> list[torch.Tensor]:
    """The eight ways to lay a square."""
    turned = [torch.rot90(patch, k, (1, 2)) for k in range(4)]
    return turned + [x.flip(2) for x in turned]


def _placed(patch: torch.Tensor, images: list[ImagePair]) -> tuple[int, int, int, int]:
    """The image, top, left and symmetry that a patch of coordinates comes from."""
    side = patch.shape[1]
    number, top, left = int(patch[2, 0, 0]), int(patch[0].min()), int(patch[1].min())
    source = images[number].hr[:, top : top + side, left : left + side]
    found = [k for k, other in enumerate(_symmetries(source)) if torch.equal(other, patch)]
    assert len(found) == 1, "not a crop of the image, turned or flipped"
    return number, top, left, found[0]


sizes = st.lists(st.tuples(st.integers(8, 40), st.integers(8, 40)), min_size=1, max_size=3)


@given(
    sizes=sizes, scale=st.sampled_from((2, 4)), with_lr=st.booleans(), seed=seeds, step=st.integers(0, 10**6)
)
def test_patches_are_crops_of_the_images_and_lr_goes_along(sizes, scale, with_lr, seed, step) -> None:
    images = _pairs(sizes, scale, with_lr)
    sampler = PatchSampler(images, patch=8, batch=5, scale=scale, seed=seed)
    hr, lr = sampler.batch_at(step)
    assert (hr.shape, hr.dtype) == ((5, 3, 8, 8), torch.uint8)
    for patch in hr:
        _placed(patch, images)
    if not with_lr:
        assert lr is None
        return
    assert (lr.shape, lr.dtype) == ((5, 3, 8 // scale, 8 // scale), torch.uint8)
    at_lr_size = hr[..., ::scale, ::scale].clone()
    at_lr_size[:, :2] //= scale  # an HR pixel of each cell, brought to the LR image's coordinates
    assert torch.equal(at_lr_size, lr)


@pytest.mark.parametrize("with_lr", [False, True])
def test_every_place_and_every_turn_is_drawn(with_lr: bool) -> None:
    images = _pairs([(12, 16)], 4, with_lr)
    hr, _ = PatchSampler(images, patch=8, batch=1500, scale=4, seed=0).batch_at(0)
    placed = {_placed(patch, images)[1:] for patch in hr}
    grid = 4 if with_lr else 1
    tops, lefts = range(0, 5, grid), range(0, 9, grid)
    assert {top for top, _, _ in placed} == set(tops)
    assert {left for _, left, _ in placed} == set(lefts)
    assert {turn for _, _, turn in placed} == set(range(8))
    if with_lr:
        assert placed == {(top, left, turn) for top in tops for left in lefts for turn in range(8)}


def test_larger_images_are_drawn_more_often() -> None:
    images = _pairs([(8, 8), (24, 24)], 2, False)
    hr, _ = PatchSampler(images, patch=8, batch=1000, scale=2, seed=0).batch_at(0)
    share = float((hr[:, 2, 0, 0] == 1).float().mean())
    assert share == pytest.approx(0.9, abs=0.04)


@given(seed=seeds, step=st.integers(0, 10**9), rank=st.integers(0, 7))
def test_a_batch_depends_on_seed_step_and_rank_alone(seed: int, step: int, rank: int) -> None:
    images = _pairs([(40, 40), (30, 36)], 2, True)
    make = {"patch": 8, "batch": 8, "scale": 2}
    first, second = (PatchSampler(images, seed=seed, **make) for _ in range(2))
    second.batch_at(step + 3)
    torch.manual_seed(step)  # neither earlier draws nor the global generator matter
    wanted = first.batch_at(step, rank)
    for got in (first.batch_at(step, rank), second.batch_at(step, rank)):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    for other in (
        first.batch_at(step + 1, rank),
        first.batch_at(step, rank + 1),
        PatchSampler(images, seed=seed + 1, **make).batch_at(step, rank),
    ):
        assert not torch.equal(other[0], wanted[0])


def test_drawing_leaves_images_and_the_global_generator_alone() -> None:
    images = _pairs([(16, 16)], 2, True)
    before = torch.get_rng_state()
    hr, lr = PatchSampler(images, patch=8, batch=4, scale=2, seed=0).batch_at(0)
    hr.zero_(), lr.zero_()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images[0].hr, _coordinates(16, 16, 0))
    assert torch.equal(images[0].lr, _coordinates(8, 8, 0))


@pytest.mark.parametrize(("patch", "batch"), [(6, 1), (0, 1), (-4, 1), (2, 1), (8, 0), (8, -1)])
def test_patches_must_be_multiples_of_the_scale(patch: int, batch: int) -> None:
    with pytest.raises(ConfigError, match=rf"multiple of the scale 4.*patch={patch} and batch={batch}"):
        PatchSampler(_pairs([(16, 16)], 4, False), patch=patch, batch=batch, scale=4, seed=0)


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 16, 12\) is smaller than a patch of 16"):
        PatchSampler(_pairs([(16, 16), (16, 12)], 4, False), patch=16, batch=1, scale=4, seed=0)


def test_some_images_with_lr_and_some_without_are_refused() -> None:
    images = [*_pairs([(16, 16)], 4, True), *_pairs([(16, 16)], 4, False)]
    with pytest.raises(RescalingError, match="LR"):
        PatchSampler(images, patch=8, batch=8, scale=4, seed=0)


def test_no_images_are_refused() -> None:
    with pytest.raises(RescalingError, match="image"):
        PatchSampler([], patch=8, batch=8, scale=4, seed=0)


def test_batches_are_those_of_earlier_versions() -> None:
    """A run that was begun with an earlier version goes on with the same patches."""
    hr, lr = PatchSampler(_pairs([(40, 37), (20, 64)], 4, True), patch=8, batch=4, scale=4, seed=7).batch_at(
        3
    )
    assert [_digest(hr), _digest(lr)] == ["4985236e4f6b64c3", "aa39c97f97c1494b"]


# On a device


@given(
    sizes=sizes,
    scale=st.sampled_from((2, 4)),
    with_lr=st.booleans(),
    seed=seeds,
    step=st.integers(0, 10**6),
    sub_images=st.sampled_from((None, (8, 4), (8, 8))),
)
def test_images_kept_flat_on_a_device_give_the_same_patches(
    sizes, scale, with_lr, seed, step, sub_images
) -> None:
    sizes = [(height // scale * scale, width // scale * scale) for height, width in sizes]
    images = _random_pairs(sizes, scale, with_lr, seed)
    recipe = {"patch": 8, "batch": 9, "scale": scale, "seed": seed, "sub_images": sub_images}
    where_they_are = PatchSampler(images, **recipe)
    on_device = PatchSampler(images, device=torch.device("cpu"), **recipe)
    for wanted, got in zip(where_they_are.batch_at(step, 1), on_device.batch_at(step, 1), strict=True):
        assert (wanted is None) == (got is None)
        assert wanted is None or (got.is_contiguous() and torch.equal(got, wanted))
    for kept, image in zip(on_device.images, images, strict=True):
        assert torch.equal(kept.hr, image.hr)
        assert kept.hr.data_ptr() != image.hr.data_ptr()
        assert (kept.lr is None) == (image.lr is None)


def test_a_device_that_computes_nothing_shows_that_no_step_waits_for_it() -> None:
    """On the meta device anything that reads a value back raises."""
    sampler = PatchSampler(
        _pairs([(40, 40), (30, 36)], 2, True), patch=8, batch=4, scale=2, seed=0, device=torch.device("meta")
    )
    hr, lr = sampler.batch_at(0)
    assert [tuple(hr.shape), tuple(lr.shape)] == [(4, 3, 8, 8), (4, 3, 4, 4)]
    assert hr.device.type == lr.device.type == "meta"


# Sub-images


def test_the_grid_of_div2k() -> None:
    corners = sub_image_corners(1356, 2040, size=480, step=240)
    assert len(corners) == 40
    assert sorted({top for top, _ in corners}) == [0, 240, 480, 720, 876]
    assert sorted({left for _, left in corners}) == [0, 240, 480, 720, 960, 1200, 1440, 1560]
    assert corners[:2] == [(0, 0), (0, 240)]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 480, [(0, 0)]),
        (720, 480, [(0, 0), (240, 0)]),  # no rest, no further corner
        (721, 480, [(0, 0), (240, 0), (241, 0)]),
        (480, 500, [(0, 0), (0, 20)]),
    ],
)
def test_the_last_sub_image_is_flush_with_the_border(height, width, expected) -> None:
    assert sub_image_corners(height, width, size=480, step=240) == expected


@given(height=st.integers(8, 60), width=st.integers(8, 60), size=st.integers(1, 8), step=st.integers(1, 8))
def test_sub_images_cover_the_image_and_stay_inside(height, width, size, step) -> None:
    seen = torch.zeros(height, width)
    for top, left in sub_image_corners(height, width, size, min(size, step)):
        assert seen[top : top + size, left : left + size].shape == (size, size)
        seen[top : top + size, left : left + size] += 1
    assert bool(seen.all())


def test_sub_images_that_cannot_be_are_refused() -> None:
    with pytest.raises(ShapeError, match="30x20 is smaller than a sub-image of 24x24"):
        sub_image_corners(20, 30, 24, 8)
    for size, step in ((0, 8), (8, 0)):
        with pytest.raises(ConfigError, match=f"size={size} and step={step}"):
            sub_image_corners(20, 30, size, step)
    recipe = {"patch": 16, "batch": 1, "scale": 4, "seed": 0}
    with pytest.raises(ConfigError, match="sub-images of 12 are smaller than a patch of 16"):
        PatchSampler(_pairs([(40, 40)], 4, False), sub_images=(12, 8), **recipe)
    with pytest.raises(ConfigError, match=r"at \(0, 22\) of an image of 42x40 is off the grid.*4 pixels"):
        PatchSampler(_pairs([(40, 42)], 4, True), sub_images=(20, 20), **recipe)
    PatchSampler(_pairs([(40, 42)], 4, False), sub_images=(20, 20), **recipe)


@pytest.mark.parametrize("with_lr", [False, True])
def test_patches_lie_inside_sub_images_which_are_drawn_evenly(with_lr: bool) -> None:
    images = _pairs([(24, 40), (16, 16)], 4, with_lr)
    sampler = PatchSampler(images, patch=12, batch=3000, scale=4, seed=0, sub_images=(16, 16))
    corners = [(0, corner) for corner in sub_image_corners(24, 40, 16, 16)] + [(1, (0, 0))]
    assert sampler.regions == len(corners) == 7
    counts = dict.fromkeys(corners, 0)
    for patch in sampler.batch_at(0)[0]:
        number, top, left, _ = _placed(patch, images)
        inside = [
            (image, (y, x))
            for image, (y, x) in corners
            if image == number and 0 <= top - y <= 4 and 0 <= left - x <= 4
        ]
        assert inside
        for corner in inside:
            counts[corner] += 1 / len(inside)
    assert counts[1, (0, 0)] == pytest.approx(3000 / 7, rel=0.2)


def _random_pairs(sizes, scale: int, with_lr: bool, seed: int) -> list[ImagePair]:
    generator = torch.Generator().manual_seed(seed % 2**31)

    def draw(height: int, width: int) -> torch.Tensor:
        return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)

    return [ImagePair(draw(h, w), draw(h // scale, w // scale) if with_lr else None) for h, w in sizes]


def _digest(batch: torch.Tensor) -> str:
    return hashlib.sha256(batch.numpy().tobytes()).hexdigest()[:16]
