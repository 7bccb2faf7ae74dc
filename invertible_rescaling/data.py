"""Training patches: images decoded once and kept as 8 bits, crops drawn from them reproducibly.

A batch depends on nothing but the images, the seed and the step, so that a run that was interrupted goes on
with the very batches it would have seen.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from invertible_rescaling.errors import ConfigError, ImageError, ShapeError

__all__ = ["ImagePair", "PatchSampler", "div2k_pairs", "load_images"]

Reader = Callable[[Path], Tensor]


@dataclass(frozen=True)
class ImagePair:
    """An HR image and, where the data set brings its own, the LR it should be shrunk to.

    Attributes:
        hr: ``(3, H, W)`` uint8.
        lr: ``(3, H // scale, W // scale)`` uint8, or ``None``.
    """

    hr: Tensor
    lr: Tensor | None = None


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
) -> list[ImagePair]:
    """Decode all images once, in order, leaving out those that cannot be used.

    Args:
        files: HR files with their LR files or ``None``.
        read: turns a file into a ``(3, H, W)`` uint8 tensor, raising ImageError where it cannot.
        scale: of the rescaler.
        patch: sides of the patches to be drawn; smaller images are left out.
        skipped: called with one line for each image left out, which names it and says why.

    Raises:
        ImageError: no image is left.
    """

    def load(pair: tuple[Path, Path | None]) -> ImagePair | str:
        try:
            return _checked(
                ImagePair(read(pair[0]), read(pair[1]) if pair[1] else None), pair[0], scale, patch
            )
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


def _checked(pair: ImagePair, path: Path, scale: int, patch: int) -> ImagePair:
    height, width = pair.hr.shape[-2:]
    if min(height, width) < patch:
        raise ImageError(f"{os.fspath(path)!r} is {width}x{height}, smaller than a patch of {patch}x{patch}")
    if pair.lr is not None and tuple(pair.lr.shape[-2:]) != (height // scale, width // scale):
        raise ImageError(
            f"the LR image of {os.fspath(path)!r} is {pair.lr.shape[2]}x{pair.lr.shape[1]}, "
            f"not {width // scale}x{height // scale}"
        )
    return pair


class PatchSampler:
    """Draws batches of random square crops, flipped and turned, as uint8.

    Args:
        images: what :func:`load_images` returned: all with an LR image, or none.
        patch: side of an HR patch, a multiple of ``scale``.
        batch: patches a batch.
        scale: of the rescaler.
        seed: of all draws.

    Raises:
        ConfigError: ``patch`` is not a positive multiple of ``scale``, ``batch`` is below 1, there are no
            images, or only some bring an LR image.
        ShapeError: an image is smaller than a patch.

    Example:
        >>> import torch
        >>> from invertible_rescaling.data import ImagePair, PatchSampler
        >>> image = torch.arange(3 * 16 * 16).remainder(256).to(torch.uint8).view(3, 16, 16)
        >>> sampler = PatchSampler([ImagePair(image)], patch=8, batch=4, scale=4, seed=0)
        >>> hr, lr = sampler.batch_at(step=0)
        >>> hr.shape, lr
        (torch.Size([4, 3, 8, 8]), None)
    """

    def __init__(self, images: Sequence[ImagePair], *, patch: int, batch: int, scale: int, seed: int) -> None:
        if patch < scale or patch % scale or batch < 1:
            raise ConfigError(
                f"patches need a side that is a multiple of the scale {scale} and at least 1 a batch, "
                f"got patch={patch} and batch={batch}"
            )
        if not images:
            raise ConfigError("PatchSampler needs at least one image, got none")
        with_lr = sum(image.lr is not None for image in images)
        if with_lr not in (0, len(images)):
            raise ConfigError(
                f"either all images bring an LR image or none, got {with_lr} of {len(images)} with one"
            )
        for image in images:
            if min(image.hr.shape[-2:]) < patch:
                raise ShapeError(f"an image of {tuple(image.hr.shape)} is smaller than a patch of {patch}")
        self.images = images
        self.patch = patch
        self.batch = batch
        self.scale = scale
        self.seed = seed
        # Large images hold more to see; each is drawn in proportion to its pixels.
        self._pixels = torch.tensor([float(image.hr[0].numel()) for image in images])

    def batch_at(self, step: int, rank: int = 0) -> tuple[Tensor, Tensor | None]:
        """Return the batch of a step, ``(batch, 3, patch, patch)`` uint8, and its LR or ``None``.

        Args:
            step: counts from 0; any order of calls gives the same batches.
            rank: of the process, so that each of several sees other patches.
        """
        generator = torch.Generator().manual_seed(_mix(self.seed, step, rank))
        indices = torch.multinomial(self._pixels, self.batch, replacement=True, generator=generator)
        hr, lr = [], []
        for index in indices.tolist():
            image = self.images[index]
            crop, small = self._crop(image, generator)
            turn, flip = (int(v) for v in torch.randint(4, (2,), generator=generator))
            hr.append(_turn(crop, turn, flip % 2 == 1))
            if small is not None:
                lr.append(_turn(small, turn, flip % 2 == 1))
        return torch.stack(hr), torch.stack(lr) if lr else None

    def _crop(self, image: ImagePair, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Crop HR anywhere; where there is an LR image, on its grid, and LR at the same place."""
        grid = 1 if image.lr is None else self.scale
        top, left = (
            grid * int(torch.randint((side - self.patch) // grid + 1, (1,), generator=generator))
            for side in image.hr.shape[-2:]
        )
        hr = image.hr[:, top : top + self.patch, left : left + self.patch]
        if image.lr is None:
            return hr, None
        small = self.patch // self.scale
        y, x = top // self.scale, left // self.scale
        return hr, image.lr[:, y : y + small, x : x + small]


def _turn(patch: Tensor, quarter_turns: int, flip: bool) -> Tensor:
    turned = torch.rot90(patch, quarter_turns, dims=(1, 2))
    return turned.flip(2) if flip else turned


def _mix(*numbers: int) -> int:
    """Hash integers to one 63-bit seed, so that neighbouring steps and ranks share nothing."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state ^= (number + 0x9E3779B97F4A7C15 + (state << 6) + (state >> 2)) & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 31)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 29
    return state & 0x7FFFFFFFFFFFFFFF
