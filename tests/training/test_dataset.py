"""Training images: DIV2K's layout, and loading with what cannot be used named."""

from pathlib import Path

import pytest
import torch

from invertible_rescaling.errors import ImageError
from invertible_rescaling.images import find_images, read_image, write_image
from invertible_rescaling.training import ImagePair, data, div2k_pairs, load_images
from tests.strategies import uint8_image

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


def _load(files, *, scale: int = 4, patch: int = 8, **more) -> tuple[list[ImagePair], list[str]]:
    lines: list[str] = []
    return load_images(files, read_image, scale=scale, patch=patch, skipped=lines.append, **more), lines


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


def test_images_smaller_than_a_sub_image_are_named_and_skipped(tmp_path) -> None:
    for side in (12, 24):
        write_image(tmp_path / f"{side}.png", uint8_image(3, side, side))
    images, lines = _load([(path, None) for path in find_images(tmp_path)], sub_image=16)
    assert [image.hr.shape for image in images] == [(3, 24, 24)]
    assert "12.png' is 12x12, smaller than a sub-image of 16x16" in lines[0]


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


def test_the_memory_that_images_take_is_told_before_they_are_read(tmp_path, monkeypatch) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", uint8_image(3, 100, 100, seed=number))
    said: list[str] = []

    def read(*_arguments, **_options):
        raise AssertionError("images are read before their memory is told")

    monkeypatch.setattr(data, "load_images", read)
    monkeypatch.setattr(data, "memory_here", lambda: 89_999)
    with pytest.raises(
        ImageError, match=r"3 images take 0.0 GB of memory, and there are 0.0 GB; train on fewer"
    ):
        data.training_images(tmp_path, 4, 8, None, said.append)
    monkeypatch.setattr(data, "memory_here", lambda: 4 * 10**9)
    monkeypatch.setattr(data, "size_in_header", lambda _path: (20_000, 20_000))
    with pytest.raises(AssertionError):
        data.training_images(tmp_path, 4, 8, None, said.append)
    assert said == ["3 images take 3.6 GB of memory, of 4.0 GB"]
