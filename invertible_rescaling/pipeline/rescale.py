"""A picture down and up on a model, whatever its kind: greyscale, alpha, 16 bits, any size."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.functional import bicubic_resize
from invertible_rescaling.images import Picture
from invertible_rescaling.layers.subnet_parts import ChannelAttention
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["PictureRescaler"]

# Whole pictures take about 230 bytes a pixel (iirn_x4 of 4+4 couplings), tiles of the exact way 24 and what a
# tile takes, tiles on their own 12. What is chosen depends on the picture alone, and not on the memory that
# happens to be free: the same picture is to give the same file.
_WHOLE, _EXACT = 2**22, 2**26
_TILE, _OVERLAP = 1024, 64
# Models without global pooling give the same in tiles that overlap as far as they see, and sooner, as a tile
# stays in the cache; up to this overlap, beyond which too much is computed twice.
_FARTHEST = 128


@dataclass(frozen=True)
class PictureRescaler:
    """A model for whole pictures, whatever their kind: greyscale, alpha, 16 bits, any size.

    Args:
        model: for three channels, in evaluation mode, on the device that is to compute.
        tile: HR pixels a side to work in, 0 for the whole picture, ``None`` to choose by its size.

    Raises:
        ConfigError: a tile that is no multiple of the scale, or a model of other than three channels.

    Example:
        >>> import torch
        >>> from invertible_rescaling import linear_x4
        >>> from invertible_rescaling.images import Picture
        >>> from invertible_rescaling.pipeline import PictureRescaler
        >>> rescaler = PictureRescaler(linear_x4(weights="DEFAULT").eval())
        >>> grey = Picture(torch.full((1, 30, 41), 40000).to(torch.uint16))
        >>> lr = rescaler.downscale(grey)
        >>> lr.kind, lr.size, rescaler.upscale(lr, (30, 41)).size
        ('greyscale, 16 bits', (8, 11), (30, 41))
    """

    model: InvertibleRescaler
    tile: int | None = None

    def __post_init__(self) -> None:
        check_tile(self.model.scale, self.tile)
        if self.model.channels != 3:
            raise ConfigError(f"pictures need a model of 3 channels, got one of {self.model.channels}")

    def downscale(self, picture: Picture, *, progress: Callable[[float], None] | None = None) -> Picture:
        """Return the LR picture, of the same kind and depth; store it without loss.

        Args:
            picture: of any kind and size.
            progress: called with the share that is done, 0 to 1, while the picture is worked at in tiles.
        """
        hr = _three(unit(picture.colour)).to(self._device)
        lr = self.model.downscale(hr, bits=picture.bits, progress=progress, **self._tiles(picture.size))
        if picture.colour.shape[0] == 1:
            lr = _one(lr)
        alpha = None if picture.alpha is None else _shrink_alpha(picture.alpha, self.model.scale)
        return replace(picture, colour=stored(lr[0], picture.bits), alpha=alpha, notes=())

    def upscale(
        self,
        picture: Picture,
        size: tuple[int, int] | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Picture:
        """Return the picture brought back to ``size``, of the same kind and depth.

        Args:
            picture: as :meth:`downscale` made it.
            size: the original (H, W); ``scale`` times LR's by default.
            progress: as for :meth:`downscale`.

        Raises:
            ShapeError: LR of that size does not come from ``size``.
        """
        return self.store(picture, self.restore(picture, size, progress=progress))

    def restore(
        self,
        picture: Picture,
        size: tuple[int, int] | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Return the colours of an LR picture at ``size``, ``(1, C, H, W)`` in [0, 1], before rounding."""
        lr, scale = _three(unit(picture.colour)).to(self._device), self.model.scale
        size = size or (picture.size[0] * scale, picture.size[1] * scale)
        with torch.random.fork_rng([lr.device] if lr.is_cuda else []):
            torch.manual_seed(0)  # for latents that draw: the same LR is to give the same picture
            hr = self.model.upscale(lr, size=size, progress=progress, **self._tiles(size))
        return _one(hr) if picture.colour.shape[0] == 1 else hr

    def store(self, picture: Picture, colour: Tensor) -> Picture:
        """Return the restored picture of an LR picture: restored colours rounded, its alpha enlarged."""
        alpha, size = None, (colour.shape[2], colour.shape[3])
        if picture.alpha is not None:
            scale = self.model.scale
            full = (picture.size[0] * scale, picture.size[1] * scale)
            # The sharper of the two bicubic kernels, as for the figures of bicubic in this library's tables.
            enlarged = bicubic_resize(unit(picture.alpha), full, antialias=False)
            alpha = stored(enlarged[0, :, : size[0], : size[1]], picture.bits)
        return replace(picture, colour=stored(colour[0], picture.bits), alpha=alpha, notes=())

    @property
    def _device(self) -> torch.device:
        return next((weight.device for weight in self.model.parameters()), torch.device("cpu"))

    def _tiles(self, size: tuple[int, int]) -> dict[str, Any]:
        if self.tile is not None:
            return {"tile": self.tile} if self.tile else {}
        pixels, side = size[0] * size[1], _TILE - _TILE % self.model.scale
        overlap = _local_overlap(self.model) if pixels > side * side else None
        if overlap is not None:
            return {"tile": side, "overlap": overlap}
        if pixels <= _WHOLE:
            return {}
        return {"tile": side} if pixels <= _EXACT else {"tile": side, "overlap": _OVERLAP}


def _local_overlap(model: InvertibleRescaler) -> int | None:
    """From which overlap on tiles of a model give what it makes of the whole; ``None`` if that is too far."""
    if any(isinstance(module, ChannelAttention) for module in model.flow.modules()):
        return None
    try:
        reach = model.receptive_field
    except ConfigError:  # not known
        return None
    overlap = -(-reach // model.scale) * model.scale
    return overlap if overlap <= _FARTHEST else None


def check_tile(scale: int, tile: int | None, name: str = "tile") -> None:
    """Refuse a tile that no model of a scale can work in.

    Raises:
        ConfigError: it is no multiple of the scale.
    """
    if tile is not None and tile % scale:
        raise ConfigError(f"{name} must be a multiple of the scale {scale}, got {tile}")


# Greyscale goes through the model as three equal channels, and one channel is kept of what comes out: their
# mean, both ways. LR of a grey picture is not quite grey, since the model puts detail into the differences of
# channels, which one channel cannot hold. On Set5 and eight of Set14 in grey (iirn_x4 of 4+4 couplings): mean
# 26.54 dB, luma 26.49 dB, green alone 26.27 dB, bicubic 25.56 dB; all three channels, no greyscale any more,
# 29.97 dB.


def _three(image: Tensor) -> Tensor:
    return image.expand(-1, 3, -1, -1).contiguous() if image.shape[1] == 1 else image


def _one(image: Tensor) -> Tensor:
    # In float64, so that three equal values have just that mean.
    return image.double().mean(dim=1, keepdim=True)


# Alpha goes by bicubic. Masks are smooth or flat nearly everywhere, where the model, which was trained on
# photographs, makes noise: on masks with soft edges bicubic has 37.5 dB against the model's 32.9 dB; with
# edges in every few pixels, which masks seldom have, 16.9 dB against 18.5 dB. What is opaque stays so.


def _shrink_alpha(alpha: Tensor, scale: int) -> Tensor:
    height, width = alpha.shape[-2:]
    whole = pad(unit(alpha), (0, -width % scale, 0, -height % scale), mode="replicate")
    small = (whole.shape[2] // scale, whole.shape[3] // scale)
    return stored(bicubic_resize(whole, small)[0], 8 if alpha.dtype == torch.uint8 else 16)


def unit(plane: Tensor) -> Tensor:
    """Planes (C, H, W) of a picture as a batch in [0, 1]."""
    return plane.to(torch.float32).unsqueeze(0) / (255 if plane.dtype == torch.uint8 else 65535)


def stored(image: Tensor, bits: int) -> Tensor:
    """Values in [0, 1], and a little beside, as a picture's."""
    levels = image.detach().cpu().clamp(0, 1).mul_(2**bits - 1).round_()
    return levels.to(torch.uint8) if bits == 8 else levels.to(torch.int32).to(torch.uint16)
