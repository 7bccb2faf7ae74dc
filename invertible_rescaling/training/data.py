"""Where training and validation images come from: plain folders, DIV2K's layout, scikit-image."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from invertible_rescaling._process import memory_here
from invertible_rescaling.errors import ImageError
from invertible_rescaling.images import find_images, read_image
from invertible_rescaling.images.io import size_in_header
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.dataset import div2k_pairs, load_images
from invertible_rescaling.training.device import device_for_images
from invertible_rescaling.training.div2k import download_div2k
from invertible_rescaling.training.patches import ImagePair, PatchSampler
from invertible_rescaling.training.validation import ValidationImage, load_validation

Say = Callable[[str], None]

_DEMO_TRAIN = (
    "chelsea",
    "coffee",
    "rocket",
    "stereo_motorcycle",
    "hubble_deep_field",
    "retina",
    "brick",
    "grass",
    "gravel",
)
_DEMO_VAL = "astronaut"


def training_images(
    folder: Path, scale: int, patch: int, sub_image: int | None, say: Say, held_out: Path | None = None
) -> list[ImagePair]:
    """Read a plain folder, or DIV2K's training half with the LR images that stand beside it.

    Images that cannot be used are named and counted, and those that lie in ``held_out``, to be validated on,
    are left out.

    Raises:
        ImageError: nothing usable is there.
    """
    found = div2k_pairs(folder, "train", scale) or [(path, None) for path in find_images(folder)]
    files = [pair for pair in found if not _lies_in(pair[0], held_out)]
    if not files:
        raise ImageError(
            f"every image in {str(folder)!r} is one to validate on, as it lies in {str(held_out)!r}; give "
            "--val other images than --data"
        )
    if len(files) < len(found):
        say(f"{len(found) - len(files)} images to validate on, in {str(held_out)!r}, are not trained on")
    _check_memory(files, say)
    problems: list[str] = []
    images = []
    try:
        images = load_images(
            files, read_image, scale=scale, patch=patch, skipped=problems.append, sub_image=sub_image
        )
    finally:
        for line in problems:
            say(f"skipped: {line}")
    small = "their own LR images" if images[0].lr is not None else "bicubic as the LR to aim at"
    left_out = f", {len(problems)} skipped" if problems else ""
    say(f"training on {len(images)} images from {str(folder)!r}{left_out}, {small}")
    return images


def _check_memory(files: Sequence[tuple[Path, Path | None]], say: Say) -> None:
    """Say what memory the images will take, by their headers, before they are read.

    Raises:
        ImageError: it is more than there is.
    """
    sizes = [size_in_header(path) for pair in files for path in pair if path is not None]
    needed, here = sum(3 * height * width for height, width in filter(None, sizes)), memory_here()
    told = f"{len(files)} images take {needed / 1e9:.1f} GB of memory"
    if needed > here:
        raise ImageError(f"{told}, and there are {here / 1e9:.1f} GB; train on fewer, or on smaller ones")
    if needed > 10**9:
        say(f"{told}, of {here / 1e9:.1f} GB")


def _lies_in(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def validation_folder(data: Path | None, val: Path | None) -> Path | None:
    """The folder to validate on: the one given, or DIV2K's validation half."""
    if val is not None:
        half = val / "DIV2K_valid_HR"
        return half if half.is_dir() else val
    if data is not None and (data / "DIV2K_valid_HR").is_dir():
        return data / "DIV2K_valid_HR"
    return None


def demo_images() -> tuple[list[ImagePair], list[ValidationImage]]:
    """The photographs that scikit-image ships, one of them (the astronaut) held out."""
    train = [ImagePair(photograph(name)) for name in _DEMO_TRAIN]
    return train, [ValidationImage(_DEMO_VAL, photograph(_DEMO_VAL).unsqueeze(0))]


def photograph(name: str) -> Tensor:
    """A photograph that scikit-image ships, ``(3, H, W)`` uint8."""
    data = importlib.import_module("skimage.data")
    array = getattr(data, name)()
    if isinstance(array, tuple):  # stereo pairs come with a disparity map
        array = array[0]
    image = torch.from_numpy(array.copy())
    image = image.unsqueeze(2).expand(-1, -1, 3) if image.dim() == 2 else image[..., :3]
    return image.permute(2, 0, 1).contiguous()


def hold_out(images: list[ImagePair], fraction: float) -> tuple[list[ImagePair], list[ValidationImage]]:
    """Part images into those to train on and a share, spread evenly, to validate on.

    Raises:
        ImageError: there are too few images to part them.

    Example:
        >>> train, val = hold_out([ImagePair(torch.zeros(3, 8, 8, dtype=torch.uint8))] * 30, 0.1)
        >>> len(train), len(val)
        (27, 3)
    """
    count = max(1, round(fraction * len(images)))
    if count >= len(images):
        raise ImageError(f"--val-fraction {fraction:g} of {len(images)} images leaves none to train on")
    chosen = {index * len(images) // count for index in range(count)}
    train = [image for index, image in enumerate(images) if index not in chosen]
    return train, [
        ValidationImage(f"image {index}", images[index].hr.unsqueeze(0)) for index in sorted(chosen)
    ]


def load_data(options: TrainingConfig, scale: int, say: Say) -> tuple[list[ImagePair], list[ValidationImage]]:
    """Read the training and validation images that the options name."""
    if options.demo:
        return demo_images()
    data = options.data
    if options.download is not None:
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            download_div2k(options.download, progress=not options.quiet)
        from accelerate import PartialState  # here, since what reads photographs alone does without

        PartialState().wait_for_everyone()
        data = data or options.download
    if data is None:  # check_data() has seen to it
        raise OptionError("there is nothing to train on")
    folder = validation_folder(data, options.val)
    train = training_images(data, scale, options.patch or 0, options.sub_images, say, held_out=folder)
    if folder is None and options.val_fraction:
        train, held_out = hold_out(train, options.val_fraction)
        say(f"validating on {len(held_out)} of these images, which are not trained on")
        return train, held_out
    if folder is None:
        say("no validation: give --val DIR or --val-fraction 0.05 to see how good the model gets")
        return train, []
    return train, validation_images(folder, options, scale, say)


def validation_images(folder: Path, options: TrainingConfig, scale: int, say: Say) -> list[ValidationImage]:
    """Read the images of a folder to validate on, and say how many there are."""
    val = load_validation(folder, scale, options.val_limit, lambda line: say(f"skipped: {line}"))
    say(f"validating on {len(val)} images from {str(folder)!r}")
    return val


def sampler_of(
    options: TrainingConfig,
    scale: int,
    images: Sequence[ImagePair],
    device: torch.device,
    say: Say,
) -> PatchSampler:
    """The patches of a run."""
    return PatchSampler(
        images,
        patch=options.patch or 0,
        batch=options.batch_size or 0,
        scale=scale,
        seed=options.seed,
        sub_images=(options.sub_images, options.sub_image_step) if options.sub_images else None,
        device=device_for_images(options.images_on, images, device, say),
    )
