"""Down and up in one go: how much comes back, in figures and in a picture."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from invertible_rescaling.evaluation import bicubic_rescale, compare, crop_to_multiple
from invertible_rescaling.images import Picture, decode_picture, encode_picture
from invertible_rescaling.images.contact_sheet import SIDE, Panel, compose
from invertible_rescaling.pipeline.networks import Network
from invertible_rescaling.pipeline.rescale import stored, unit

__all__: list[str] = []  # for the command line alone


@dataclass(frozen=True)
class Comparison:
    """The result of a round trip.

    Attributes:
        source: its file.
        size: of the picture in the file, (H, W).
        original: the picture, its sides cropped to multiples of the scale, as for the library's tables.
        lr: as ``downscale`` stores it.
        restored: as ``upscale`` does.
        bicubic: down, to the same depth, and up.
        psnr: in dB, ``ours`` and ``bicubic``, over the colours.
        ssim: alike; empty for pictures smaller than its window.
        bytes: of the ``original`` file, of ``lr`` and of ``restored`` as PNG.
    """

    source: Path
    size: tuple[int, int]
    original: Picture
    lr: Picture
    restored: Picture
    bicubic: Picture
    psnr: dict[str, float]
    ssim: dict[str, float]
    bytes: dict[str, int]

    def row(self) -> str:
        """In one line."""
        size = "{1}x{0}".format(*self.size)
        if self.original.size != self.size:
            size += ", cropped to {1}x{0},".format(*self.original.size)
        figures = [f"{who} {self.psnr[who]:.2f} dB" for who in ("ours", "bicubic")]
        if self.ssim:
            figures = [f"{text} / {self.ssim[who]:.4f}" for text, who in zip(figures, self.ssim, strict=True)]
        sizes = ", ".join(f"{name} {count:,} bytes" for name, count in self.bytes.items())
        small = "{1}x{0}".format(*self.lr.size)
        return f"{self.source}: {size} through {small}: {'; '.join(figures)}; {sizes}"


def there_and_back(network: Network, source: Path, max_pixels: int, tile: int | None = None) -> Comparison:
    """Take a picture down and up.

    Raises:
        ImageError: it cannot be read.
        OSError: likewise.
    """
    content = source.read_bytes()
    whole, scale = decode_picture(content, max_pixels=max_pixels), network.model.scale
    original = _crop(whole, scale)
    rescaler = network.in_tiles(tile)
    lr = rescaler.downscale(original)
    hr = unit(original.colour)
    ours = rescaler.restore(lr, original.size).cpu()
    _, bicubic = bicubic_rescale(scale, bits=original.bits)(hr)
    pairs = {"ours": ours, "bicubic": bicubic}
    figures = {who: compare(sr, hr, border=scale, spaces=("rgb",)) for who, sr in pairs.items()}
    restored = rescaler.store(lr, ours)
    return Comparison(
        source,
        whole.size,
        original,
        lr,
        restored,
        replace(original, colour=stored(bicubic[0], original.bits), alpha=None),
        {who: found["psnr_rgb"] for who, found in figures.items()},
        {who: found["ssim_rgb"] for who, found in figures.items() if "ssim_rgb" in found},
        {
            "original": len(content),
            "lr": len(encode_picture(lr, "png")),
            "restored": len(encode_picture(restored, "png")),
        },
    )


def draw(comparisons: list[Comparison]) -> bytes:
    """A PNG file: for each, LR, and a crop from the middle of the original, of bicubic's and of ours."""
    sheet = compose([_panels(found) for found in comparisons])
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _panels(found: Comparison) -> list[Panel]:
    side = SIDE // 2  # shown twice as large
    height, width = found.original.size
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)

    def crop(picture: Picture) -> Tensor:
        return _rgb(picture)[..., top : top + side, left : left + side]

    small = _rgb(found.lr)
    rows, columns = ((length - min(length, SIDE)) // 2 for length in found.lr.size)
    return [
        Panel(small[..., rows : rows + SIDE, columns : columns + SIDE], f"{found.source.stem[:20]}\nLR"),
        Panel(crop(found.original), "original\n"),
        Panel(crop(found.bicubic), f"bicubic\n{found.psnr['bicubic']:.2f} dB"),
        Panel(crop(found.restored), f"ours\n{found.psnr['ours']:.2f} dB"),
    ]


def _crop(picture: Picture, scale: int) -> Picture:
    alpha = None if picture.alpha is None else crop_to_multiple(picture.alpha, scale)
    return replace(picture, colour=crop_to_multiple(picture.colour, scale), alpha=alpha)


def _rgb(picture: Picture) -> Tensor:
    return unit(picture.colour).repeat(1, 3 // picture.colour.shape[0], 1, 1)
