"""Training images: found in DIV2K's layout, decoded once and kept as 8 bits; patches come from them."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from invertible_rescaling.errors import DtypeError, ImageError, ShapeError
from invertible_rescaling.training.patches import ImagePair

__all__ = ["div2k_pairs", "load_images"]

Reader = Callable[[Path], Tensor]


def div2k_pairs(
    folder: str | os.PathLike[str], subset: str, scale: int
) -> list[tuple[Path, Path | None]] | None:
    """Find HR files and their LR files in DIV2K's layout; ``None`` if the folder is not laid out so.

    The layout is ``DIV2K_train_HR/0001.png`` and, optionally, ``DIV2K_train_LR_bicubic/X4/0001x4.png``.

    Args:
        folder: the one that holds ``DIV2K_{subset}_HR``.
        subset: ``"train"`` or ``"valid"``.
        scale: which LR folder to look for.

    Raises:
        ImageError: the HR folder holds no image; the LR folder lacks some of its images.
    """
    root = Path(folder)
    hr_folder = root / f"DIV2K_{subset}_HR"
    if not hr_folder.is_dir():
        return None
    files = sorted(path for path in hr_folder.rglob("*.png") if path.is_file())
    if not files:
        raise ImageError(f"no .png image in {os.fspath(hr_folder)!r}")
    lr_folder = root / f"DIV2K_{subset}_LR_bicubic" / f"X{scale}"
    if not lr_folder.is_dir():
        return [(path, None) for path in files]
    pairs = [(path, lr_folder / f"{path.stem}x{scale}.png") for path in files]
    missing = [small for _, small in pairs if not small.is_file()]
    if missing:
        raise ImageError(
            f"{len(missing)} LR images are missing beside {os.fspath(hr_folder)!r}, the first is "
            f"{os.fspath(missing[0])!r}; complete the folder, or remove it to use bicubic"
        )
    return list(pairs)


def load_images(
    files: Sequence[tuple[Path, Path | None]],
    read: Reader,
    *,
    scale: int,
    patch: int,
    skipped: Callable[[str], None],
    sub_image: int | None = None,
) -> list[ImagePair]:
    """Decode all images once, in order, leaving out those that cannot be used.

    Args:
        files: HR files with their LR files or ``None``.
        read: turns a file into a ``(3, H, W)`` uint8 tensor, raising ImageError where it cannot.
        scale: of the rescaler.
        patch: sides of the patches to be drawn; smaller images are left out.
        skipped: called with one line for each image left out, which names it and says why.
        sub_image: sides of the sub-images that the images are to be cut into, if so.

    Raises:
        ImageError: no image is left.
    """
    least = {"patch": patch} | ({"sub-image": sub_image} if sub_image else {})

    def load(pair: tuple[Path, Path | None]) -> ImagePair | str:
        try:
            image = ImagePair(read(pair[0]), read(pair[1]) if pair[1] else None)
            return _checked(image, pair[0], scale, least)
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(load, files))
    for line in results:
        if isinstance(line, str):
            skipped(line)
    images = [result for result in results if isinstance(result, ImagePair)]
    if not images:
        raise ImageError(f"none of {len(files)} images can be used for training; the first: {results[0]}")
    return images


def _checked(pair: ImagePair, path: Path, scale: int, least: Mapping[str, int]) -> ImagePair:
    height, width = pair.hr.shape[-2:]
    for what, side in least.items():
        if min(height, width) < side:
            raise ImageError(
                f"{os.fspath(path)!r} is {width}x{height}, smaller than a {what} of {side}x{side}"
            )
    if pair.lr is not None and tuple(pair.lr.shape[-2:]) != (height // scale, width // scale):
        raise ImageError(
            f"the LR image of {os.fspath(path)!r} is {pair.lr.shape[2]}x{pair.lr.shape[1]}, "
            f"not {width // scale}x{height // scale}"
        )
    return pair


def as_pair(image: Tensor | ImagePair) -> ImagePair:
    """Return an image to train on, checked, with or without an LR image of its own."""
    pair = image if isinstance(image, ImagePair) else ImagePair(image)
    check_hr(pair.hr)
    return pair


def check_hr(image: Tensor) -> Tensor:
    """Return an image if it is ``(3, H, W)`` in uint8.

    Raises:
        DtypeError, ShapeError: it is not.
    """
    if image.dtype != torch.uint8:
        raise DtypeError(f"images to train on are uint8, got {image.dtype}; to_uint8 converts from [0, 1]")
    if image.dim() != 3 or image.shape[0] != 3:
        raise ShapeError(f"images to train on are (3, H, W), got {tuple(image.shape)}")
    return image
