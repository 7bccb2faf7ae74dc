"""Training patches: drawn reproducibly on the CPU, cut out of 8-bit images wherever those lie.

A batch depends on nothing but the images, the seed and the step, so that a run that was interrupted goes on
with the very batches it would have seen, on whichever device the images are kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invertible_rescaling.errors import ConfigError, ShapeError

__all__ = ["ImagePair", "PatchSampler", "sub_image_corners"]

Batch = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class ImagePair:
    """An HR image and, where the data set brings its own, the LR it should be shrunk to.

    Attributes:
        hr: ``(3, H, W)`` uint8.
        lr: ``(3, H // scale, W // scale)`` uint8, or ``None``.
    """

    hr: Tensor
    lr: Tensor | None = None


def sub_image_corners(height: int, width: int, size: int, step: int) -> list[tuple[int, int]]:
    """Corners (top, left) of the square sub-images that an image is cut into, row by row.

    They stand ``step`` apart from the top left on; where the last leaves a rest at the border, one more is
    flush with it. With ``size=480, step=240`` this is the usual preparation of DIV2K.

    Raises:
        ConfigError: ``size`` or ``step`` is below 1.
        ShapeError: the image is smaller than a sub-image.

    Example:
        >>> from invertible_rescaling.training import sub_image_corners
        >>> sub_image_corners(500, 720, size=480, step=240)
        [(0, 0), (0, 240), (20, 0), (20, 240)]
    """
    if size < 1 or step < 1:
        raise ConfigError(f"sub-images need a size and a step of at least 1, got size={size} and step={step}")
    if min(height, width) < size:
        raise ShapeError(f"an image of {width}x{height} is smaller than a sub-image of {size}x{size}")
    tops, lefts = (sorted({*range(0, side - size + 1, step), side - size}) for side in (height, width))
    return [(top, left) for top in tops for left in lefts]


class PatchSampler:
    """Draws batches of random square crops, flipped and turned, as uint8.

    An image is chosen in proportion to its pixels, a sub-image evenly; place, turn and flip are even, too.
    Where there are LR images, HR crops lie on their grid.

    Args:
        images: as :func:`~invertible_rescaling.training.load_images` returns them: all with an LR image, or
            none.
        patch: side of an HR patch, a multiple of ``scale``.
        batch: patches a batch.
        scale: of the rescaler.
        seed: of all draws.
        sub_images: size and step of the squares (:func:`sub_image_corners`) that patches stay within;
            ``None`` for whole images. Nothing is copied for them.
        device: to keep a copy of all images on and to cut them there, with a handful of kernels a batch and
            no wait for the device; ``None`` cuts them where they are. The patches are the same.

    Raises:
        ConfigError: ``patch`` is not a positive multiple of ``scale``, ``batch`` is below 1, there are no
            images, only some bring an LR image, or a sub-image is smaller than a patch or off the grid of its
            LR image.
        ShapeError: an image is smaller than a patch or a sub-image.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training import ImagePair, PatchSampler
        >>> image = torch.arange(3 * 16 * 16).remainder(256).to(torch.uint8).view(3, 16, 16)
        >>> sampler = PatchSampler([ImagePair(image)], patch=8, batch=4, scale=4, seed=0)
        >>> hr, lr = sampler.batch_at(step=0)
        >>> hr.shape, lr
        (torch.Size([4, 3, 8, 8]), None)
    """

    def __init__(
        self,
        images: Sequence[ImagePair],
        *,
        patch: int,
        batch: int,
        scale: int,
        seed: int,
        sub_images: tuple[int, int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        _check(images, patch, batch, scale)
        self.patch = patch
        self.batch = batch
        self.scale = scale
        self.seed = seed
        self._grid = 1 if images[0].lr is None else scale
        self._regions = _regions(images, sub_images, patch, self._grid)
        # Large images hold more to see; each is drawn in proportion to its pixels. Sub-images are all alike.
        self._weights = torch.tensor([float(region.height * region.width) for region in self._regions])
        self._cut: Callable[[Sequence[_Place]], Batch]
        if device is None:
            self.images: Sequence[ImagePair] = images
            self._cut = self._cut_in_place
        else:
            hr = _FlatImages([image.hr for image in images], patch, device)
            smalls = [image.lr for image in images if image.lr is not None]
            lr = _FlatImages(smalls, patch // scale, device) if smalls else None
            self.images = [
                ImagePair(large, small)
                for large, small in zip(hr.images, lr.images if lr else [None] * len(images), strict=True)
            ]
            self._cut = lambda places: (
                hr.cut(places),
                lr.cut([place.shrunk(scale) for place in places]) if lr else None,
            )

    @property
    def regions(self) -> int:
        """How many images or sub-images patches are drawn from."""
        return len(self._regions)

    def batch_at(self, step: int, rank: int = 0) -> Batch:
        """Return the batch of a step, ``(batch, 3, patch, patch)`` uint8, and its LR or ``None``.

        Args:
            step: counts from 0; any order of calls gives the same batches.
            rank: of the process, so that each of several sees other patches.
        """
        return self._cut(self._places_at(step, rank))

    def _places_at(self, step: int, rank: int) -> list["_Place"]:
        generator = torch.Generator().manual_seed(_mix(self.seed, step, rank))
        indices = torch.multinomial(self._weights, self.batch, replacement=True, generator=generator)
        return [self._place(self._regions[index], generator) for index in indices.tolist()]

    def _place(self, region: "_Region", generator: torch.Generator) -> "_Place":
        down, right = (
            self._grid * int(torch.randint((side - self.patch) // self._grid + 1, (1,), generator=generator))
            for side in (region.height, region.width)
        )
        turn, flip = (int(v) for v in torch.randint(4, (2,), generator=generator))
        return _Place(region.image, region.top + down, region.left + right, turn, flip % 2 == 1)

    def _cut_in_place(self, places: Sequence["_Place"]) -> Batch:
        hr = torch.stack([_cut_one(self.images[place.image].hr, place, self.patch) for place in places])
        smalls = [(self.images[place.image].lr, place.shrunk(self.scale)) for place in places]
        small = self.patch // self.scale
        lr = [_cut_one(image, place, small) for image, place in smalls if image is not None]
        return hr, torch.stack(lr) if lr else None


@dataclass(frozen=True)
class _Region:
    """The part of an image that a patch may lie in."""

    image: int
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class _Place:
    """Where a patch is cut, and how it is laid: quarter turns, then a flip from left to right."""

    image: int
    top: int
    left: int
    turn: int
    flip: bool

    def shrunk(self, scale: int) -> "_Place":
        """The same place in the LR image."""
        return _Place(self.image, self.top // scale, self.left // scale, self.turn, self.flip)


class _FlatImages:
    """Images of any sizes in one tensor on a device, which a single gather cuts a whole batch from.

    Args:
        images: ``(3, H, W)`` uint8 each.
        side: of the patches.
        device: where to keep them.
    """

    def __init__(self, images: Sequence[Tensor], side: int, device: torch.device) -> None:
        self.side = side
        self.device = device
        self.flat = torch.empty(sum(image.numel() for image in images), dtype=torch.uint8, device=device)
        self.images: list[Tensor] = []
        self.offsets: list[int] = []
        offset = 0
        for image in images:
            self.offsets.append(offset)
            room = self.flat[offset : offset + image.numel()].view(image.shape)
            self.images.append(room.copy_(image))
            offset += image.numel()
        self._steps = torch.arange(side, device=device)
        self._channels = torch.arange(3, device=device)

    def cut(self, places: Sequence[_Place]) -> Tensor:
        """Return ``(len(places), 3, side, side)`` uint8; nothing waits for the device."""
        numbers = torch.tensor([self._strides(place) for place in places])
        if self.device.type == "cuda":
            numbers = numbers.pin_memory()
        start, plane, down, right = numbers.to(self.device, non_blocking=True).t()
        corners = start[:, None] + plane[:, None] * self._channels
        rows = corners[:, :, None] + down[:, None, None] * self._steps
        return self.flat[rows[..., None] + right[:, None, None, None] * self._steps]

    def _strides(self, place: _Place) -> tuple[int, int, int, int]:
        """The first pixel of a laid patch in the flat tensor, and what a channel, row and column on add."""
        height, width = self.images[place.image].shape[1:]
        start = self.offsets[place.image] + place.top * width + place.left
        last = self.side - 1
        # By a quarter turn, going down becomes going left, and going right becomes going down.
        down, right = width, 1
        for _ in range(place.turn):
            start, down, right = start + last * right, -right, down
        if place.flip:
            start, right = start + last * right, -right
        return start, height * width, down, right


def _check(images: Sequence[ImagePair], patch: int, batch: int, scale: int) -> None:
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


def _regions(
    images: Sequence[ImagePair], sub_images: tuple[int, int] | None, patch: int, grid: int
) -> list[_Region]:
    sides = [tuple(image.hr.shape[-2:]) for image in images]
    if sub_images is None:
        return [_Region(number, 0, 0, shape[0], shape[1]) for number, shape in enumerate(sides)]
    size, step = sub_images
    if size < patch:
        raise ConfigError(f"sub-images of {size} are smaller than a patch of {patch}")
    regions = [
        _Region(number, corner[0], corner[1], size, size)
        for number, shape in enumerate(sides)
        for corner in sub_image_corners(shape[0], shape[1], size, step)
    ]
    _check_grid(regions, sides, grid)
    return regions


def _check_grid(regions: Iterable[_Region], sides: Sequence[tuple[int, ...]], grid: int) -> None:
    for region in regions:
        if region.top % grid or region.left % grid:
            height, width = sides[region.image]
            raise ConfigError(
                f"the sub-image at ({region.top}, {region.left}) of an image of {width}x{height} is off the "
                f"grid of its LR image, {grid} pixels; take a step that is a multiple of {grid} and crop the "
                "images to sides that are, or train without the LR images"
            )


def _cut_one(image: Tensor, place: _Place, side: int) -> Tensor:
    patch = image[:, place.top : place.top + side, place.left : place.left + side]
    turned = torch.rot90(patch, place.turn, dims=(1, 2))
    return turned.flip(2) if place.flip else turned


def _mix(*numbers: int) -> int:
    """Hash integers to one 63-bit seed, so that neighbouring steps and ranks share nothing."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state ^= (number + 0x9E3779B97F4A7C15 + (state << 6) + (state >> 2)) & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 31)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 29
    return state & 0x7FFFFFFFFFFFFFFF
