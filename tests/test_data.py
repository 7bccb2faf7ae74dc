"""Training patches: reproducible, really from the images, and the same for HR and LR."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertible_rescaling.data import ImagePair, PatchSampler, div2k_pairs, load_images
from invertible_rescaling.errors import ConfigError, ImageError, RescalingError, ShapeError
from invertible_rescaling.images import find_images, read_image, write_image
from tests.strategies import seeds, uint8_image


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


# DIV2K's layout


def _div2k(root: Path, *, scale: int | None = None, subset: str = "train") -> list[Path]:
    hr = root / f"DIV2K_{subset}_HR"
    lr = root / f"DIV2K_{subset}_LR_bicubic" / f"X{scale}"
    files = []
    for number in (3, 1, 2):
        hr.mkdir(parents=True, exist_ok=True)
        files.append(hr / f"{number:04}.png")
        write_image(files[-1], uint8_image(3, 16, 20, seed=number))
        if scale:
            lr.mkdir(parents=True, exist_ok=True)
            write_image(
                lr / f"{number:04}x{scale}.png", uint8_image(3, 16 // scale, 20 // scale, seed=number)
            )
    return sorted(files)


def test_div2k_without_lr_folders(tmp_path) -> None:
    files = _div2k(tmp_path)
    assert div2k_pairs(tmp_path, "train", 4) == [(path, None) for path in files]
    assert div2k_pairs(str(tmp_path), "train", 4) == div2k_pairs(tmp_path, "train", 4)


def test_div2k_with_the_lr_folder_of_the_scale(tmp_path) -> None:
    files = _div2k(tmp_path, scale=4)
    lr = tmp_path / "DIV2K_train_LR_bicubic" / "X4"
    assert div2k_pairs(tmp_path, "train", 4) == [(path, lr / f"{path.stem}x4.png") for path in files]
    assert div2k_pairs(tmp_path, "train", 2) == [(path, None) for path in files]
    assert div2k_pairs(tmp_path, "valid", 4) is None


def test_another_layout_is_none(tmp_path) -> None:
    write_image(tmp_path / "a.png", uint8_image(3, 8, 8))
    assert div2k_pairs(tmp_path, "train", 4) is None
    assert div2k_pairs(tmp_path / "nowhere", "train", 4) is None


def test_an_empty_hr_folder_and_missing_lr_images_are_named(tmp_path) -> None:
    (tmp_path / "DIV2K_valid_HR").mkdir()
    with pytest.raises(ImageError, match=r"no .png image in '.*DIV2K_valid_HR'"):
        div2k_pairs(tmp_path, "valid", 4)
    _div2k(tmp_path, scale=2)
    (tmp_path / "DIV2K_train_LR_bicubic" / "X2" / "0002x2.png").unlink()
    with pytest.raises(ImageError, match=r"1 LR images are missing.*0002x2\.png"):
        div2k_pairs(tmp_path, "train", 2)


# Loading


def _load(files, *, scale: int = 4, patch: int = 8) -> tuple[list[ImagePair], list[str]]:
    lines: list[str] = []
    return load_images(files, read_image, scale=scale, patch=patch, skipped=lines.append), lines


def test_images_are_loaded_in_order_with_their_lr(tmp_path) -> None:
    _div2k(tmp_path, scale=4)
    images, lines = _load(div2k_pairs(tmp_path, "train", 4))
    assert lines == []
    for number, image in enumerate(images, start=1):
        assert torch.equal(image.hr, uint8_image(3, 16, 20, seed=number))
        assert torch.equal(image.lr, uint8_image(3, 4, 5, seed=number))
    assert len(images) == 3


def test_what_cannot_be_used_is_named_skipped_and_counted(tmp_path) -> None:
    for number in range(4):
        write_image(tmp_path / f"good{number}.png", uint8_image(3, 9, 9, seed=number))
    whole = (tmp_path / "good0.png").read_bytes()
    (tmp_path / "corrupt.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    write_image(tmp_path / "small.png", uint8_image(3, 20, 7))
    images, lines = _load([(path, None) for path in find_images(tmp_path)])
    assert [image.hr.shape for image in images] == [(3, 9, 9)] * 4
    assert len(lines) == 3
    for name, line in zip(("corrupt.png", "empty.jpg", "small.png"), lines, strict=True):
        assert name in line
    assert "7x20, smaller than a patch of 8x8" in lines[2]


def test_lr_of_another_size_or_unreadable_is_named_and_skipped(tmp_path) -> None:
    _div2k(tmp_path, scale=4)
    lr = tmp_path / "DIV2K_train_LR_bicubic" / "X4"
    write_image(lr / "0001x4.png", uint8_image(3, 4, 6))
    (lr / "0002x4.png").write_bytes(b"no image")
    images, lines = _load(div2k_pairs(tmp_path, "train", 4))
    assert len(images) == 1
    assert "0001.png' is 6x4, not 5x4" in lines[0]
    assert "0002x4.png" in lines[1]


def test_an_error_when_none_is_left(tmp_path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    lines: list[str] = []
    files = [(path, None) for path in find_images(tmp_path)]
    with pytest.raises(ImageError, match="none of 2 images can be used"):
        load_images(files, read_image, scale=4, patch=8, skipped=lines.append)
    assert ["a.png" in lines[0], "b.png" in lines[1]] == [True, True]


def test_an_error_of_another_kind_is_not_swallowed(tmp_path) -> None:
    def read(path: Path) -> torch.Tensor:
        raise MemoryError(path)

    with pytest.raises(MemoryError):
        load_images([(tmp_path / "a.png", None)], read, scale=4, patch=8, skipped=print)
