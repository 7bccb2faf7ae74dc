"""Down and up in one go: how much comes back, in figures and in a picture."""

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from invertible_rescaling.errors import ImageError
from invertible_rescaling.evaluation import bicubic_rescale, compare, crop_to_multiple
from invertible_rescaling.images import Picture, decode_picture, encode_picture, fit_metadata
from invertible_rescaling.images.contact_sheet import SIDE, Panel, compose
from invertible_rescaling.images.formats import format_in
from invertible_rescaling.images.lossy import Lossy, within
from invertible_rescaling.pipeline.networks import Network
from invertible_rescaling.pipeline.record import KEY, Record
from invertible_rescaling.pipeline.rescale import stored, unit

__all__: list[str] = []  # for the command line alone


@dataclass(frozen=True)
class Comparison:
    """The result of a round trip.

    Attributes:
        source: its file.
        size: of the picture in the file, (H, W).
        original: the picture, its sides cropped to multiples of the scale, as for the library's tables.
        lr: as ``downscale`` stores it, or as it comes out of a codec.
        restored: as ``upscale`` does.
        bicubic: down, to the same depth, and up.
        psnr: in dB, ``ours`` and ``bicubic``, over the colours.
        ssim: alike; empty for pictures smaller than its window.
        bytes: of the ``original`` file as it is, of ``lr`` and of ``restored`` as PNG with all they carry; of
            ``lr`` as the codec stores it, if there is one.
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
        """In one line, under :func:`head`."""
        size, small = ("{1}x{0}".format(*picture.size) for picture in (self.original, self.lr))
        psnr = [f"{self.psnr[who]:.2f}" for who in ("ours", "bicubic")]
        ssim = [f"{self.ssim[who]:.4f}" if who in self.ssim else "" for who in ("ours", "bicubic")]
        counts = [f"{self.bytes[name]:,}" for name in ("original", "lr", "restored")]
        return _line(size, small, *psnr, *ssim, *counts, str(self.source))


def _line(*cells: str) -> str:
    widths = (9, 9, 6, 7, 6, 7, 10, 9, 10)
    return "  ".join([*(cell.rjust(width) for cell, width in zip(cells, widths, strict=False)), cells[-1]])


def head(through: str | None = None) -> tuple[str, str]:
    """The two lines above the rows."""
    return (
        _line("", "", "PSNR", "in dB", "SSIM", "", "bytes:", "LR,", "restored,", ""),
        _line(
            *("size", "LR", "ours", "bicubic", "ours", "bicubic", "original"),
            *(through or "PNG", "PNG", "picture"),
        ),
    )


CODECS = ("jpg", "webp", "avif", "jxl")


def codecs_at(found: Comparison) -> dict[str, float]:
    """PSNR in dB of the original stored by codecs, in as many bytes as LR; those that cannot are left out.

    Raises:
        MissingDependencyError, ImageError: a codec is not installed.
    """
    original = found.original.colour
    if found.original.bits != 8:
        return {}
    figures = {}
    for kind in CODECS:
        codec = within(kind, found.bytes["lr"], lambda codec: codec.encode(original))
        if codec is not None:
            image = unit(_as(codec.decode(codec.encode(original)), original))
            border = found.original.size[0] // found.lr.size[0]  # as of the other figures: the scale
            figures[kind] = compare(image, unit(original), border=border, spaces=("rgb",))["psnr_rgb"]
    return figures


def codecs_row(figures: dict[str, float], what: str) -> str:
    """In a line under a row."""
    told = ", ".join(f"{kind} {figures[kind]:.2f}" if kind in figures else f"{kind} -" for kind in CODECS)
    return f"{'':11}{what}: {told} dB"


def mean_row(sums: dict[str, list[float]]) -> str:
    """Under the rows, the means of their PSNR."""
    means = [f"{sum(values) / len(values):.2f}" for values in sums.values()]
    return _line("", "", *means, "", "", "", "", "", f"mean of {len(sums['ours'])}")


def there_and_back(
    network: Network, source: Path, max_pixels: int, tile: int | None = None, through: Lossy | None = None
) -> Comparison:
    """Take a picture down and up, where wanted with a codec between.

    Raises:
        ImageError: it cannot be read, or has 16 bits, which no codec stores here.
        OSError: likewise.
    """
    content = source.read_bytes()
    whole, scale = decode_picture(content, max_pixels=max_pixels), network.model.scale
    original = _crop(whole, scale)
    rescaler = network.in_tiles(tile, original.size)
    lr = rescaler.downscale(original)
    hr = unit(original.colour)
    if through is None:
        arrived, stored_lr = lr, _stored_bytes(lr, "lr", content, original.size, network)
    else:
        if original.bits != 8:
            raise ImageError(f"--through {through.kind} takes 8 bits, and it has {original.bits}")
        encoded = through.encode(lr.colour)
        arrived, stored_lr = replace(lr, colour=_as(through.decode(encoded), lr.colour)), len(encoded)
    ours = rescaler.restore(arrived, original.size).cpu()
    between = None if through is None else through.through
    _, bicubic = bicubic_rescale(scale, bits=original.bits, through=between)(hr)
    pairs = {"ours": ours, "bicubic": bicubic}
    figures = {who: compare(sr, hr, border=scale, spaces=("rgb",)) for who, sr in pairs.items()}
    restored = rescaler.store(arrived, ours)
    return Comparison(
        source,
        whole.size,
        original,
        arrived,
        restored,
        replace(original, colour=stored(bicubic[0], original.bits), alpha=None),
        {who: found["psnr_rgb"] for who, found in figures.items()},
        {who: found["ssim_rgb"] for who, found in figures.items() if "ssim_rgb" in found},
        {
            "original": len(content),
            "lr": stored_lr,
            "restored": _stored_bytes(restored, "restored", content, original.size, network),
        },
    )


def _as(image: Tensor, like: Tensor) -> Tensor:
    """Grey again what was grey."""
    return image[: like.shape[0]]


def _stored_bytes(picture: Picture, kind: str, source: bytes, size: tuple[int, int], network: Network) -> int:
    """What the commands would write of a picture, with its record."""
    facts = {"model": network.name, "weights_sha256": network.sha256, "scale": network.model.scale}
    sha256 = hashlib.sha256(source).hexdigest()
    facts |= {"source_sha256": sha256, "source_format": format_in(source)}
    record = Record.of(picture, False, kind=kind, original_size=size, **facts)
    whole = replace(picture, text={KEY: record.text()} | picture.text)
    return len(encode_picture(fit_metadata(whole, "png"), "png"))


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
