r"""PSNR at equal bytes: an LR that brings the image back, against codecs that store the image itself.

    python tools/rate_distortion.py DIR/Set5 --way small_x4:DEFAULT small_x4:JPEG90@jpeg:90 --draw rate.png

A way is ``MODEL:WEIGHTS``, or ``bicubic:SCALE``, and after ``@`` how its LR is stored: as PNG, or by a codec.
Prints a Markdown table for each folder: the bits of LR for each pixel of HR, the PSNR of what comes back, and
that of JPEG, WebP, AVIF (all at 4:2:0) and JPEG XL at the best quality which takes no more bytes than LR; all
are means over images. Bytes are those of pixels, without metadata. ``--draw`` adds the curves of the codecs
(needs matplotlib). JPEG XL needs imagecodecs.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from evaluation.measuring import read_hr
from evaluation.methods import SEED, model_of
from evaluation.report import align
from invertible_rescaling import RescalingError
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.evaluation import Rescale, bicubic_rescale, compare, measure, model_rescale
from invertible_rescaling.images import Picture, encode_picture, find_images, from_uint8, to_uint8
from invertible_rescaling.images.lossy import Lossy, within

CODECS = {"jpg": "JPEG", "webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL"}
QUALITIES = (2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 98)
LOSSLESS = 100.0  # dB, in place of infinity


@dataclass(frozen=True)
class Way:
    """How an image is made small, stored and brought back.

    Attributes:
        name: as it was asked for.
        scale: of the sides.
        rescale: HR to SR and LR.
        codec: that stores LR; ``None`` stands for PNG.
    """

    name: str
    scale: int
    rescale: Rescale
    codec: Lossy | None

    @classmethod
    def parse(cls, text: str) -> "Way":
        """Read ``small_x4:DEFAULT``, ``small_x4:JPEG90@jpeg:90`` or ``bicubic:4``.

        Raises:
            RescalingError: it is none of these, or there is no such model.
        """
        made, _, stored = text.partition("@")
        codec = Lossy.parse(stored) if stored else None
        through = None if codec is None else codec.through
        name, _, which = made.partition(":")
        if name == "bicubic":
            if which not in ("2", "4", "8"):
                raise ConfigError(f"{text!r} is no way; known: bicubic:2, bicubic:4, bicubic:8")
            return cls(text, int(which), bicubic_rescale(int(which), through=through, seed=SEED), codec)
        model = model_of(made)
        return cls(text, model.scale, model_rescale(model, through=through, seed=SEED), codec)

    def size(self, lr: Tensor) -> int:
        """Bytes of LR ``(3, h, w)``, uint8, as it is stored."""
        content = encode_picture(Picture(lr), "png") if self.codec is None else self.codec.encode(lr)
        return len(content)


@dataclass
class Original:
    """An image, and what codecs make of it, each quality once.

    Attributes:
        image: ``(1, 3, H, W)``, in [0, 1].
    """

    image: Tensor
    _contents: dict[Lossy, bytes] = field(default_factory=dict)

    def bits(self, size: int) -> float:
        """So many bytes, in bits for each pixel."""
        return 8 * size / (self.image.shape[2] * self.image.shape[3])

    def stored(self, codec: Lossy) -> bytes:
        """As a file's content."""
        if codec not in self._contents:
            self._contents[codec] = codec.encode(to_uint8(self.image[0]))
        return self._contents[codec]

    def psnr(self, codec: Lossy, border: int) -> float:
        """What is left of it, on RGB, in dB."""
        back = from_uint8(codec.decode(self.stored(codec))[None])
        return min(compare(back, self.image, border=border, spaces=("rgb",))["psnr_rgb"], LOSSLESS)


@dataclass(frozen=True)
class Cost:
    """Means over images: bits for each pixel of HR, PSNR in dB, and that of codecs in as many bytes."""

    bits: float
    psnr: float
    codecs: dict[str, float] = field(default_factory=dict)


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


@torch.no_grad()
def cost(way: Way, originals: Sequence[Original]) -> Cost:
    """What a way comes to, and what codecs do in as many bytes."""
    bits, ours = [], []
    others: dict[str, list[float]] = {kind: [] for kind in CODECS}
    for original in originals:
        found = measure(way.rescale, original.image, way.scale)
        size = way.size(to_uint8(found.lr[0]))
        bits.append(original.bits(size))
        ours.append(min(found.figures["psnr_rgb"], LOSSLESS))
        for kind, values in others.items():
            codec = within(kind, size, original.stored)
            if codec is not None:
                values.append(original.psnr(codec, way.scale))
    whole = {kind: mean(values) for kind, values in others.items() if len(values) == len(originals)}
    return Cost(mean(bits), mean(ours), whole)


def curve(kind: str, originals: Sequence[Original], border: int) -> list[Cost]:
    """A codec over its qualities."""
    codecs = [Lossy(kind, quality) for quality in QUALITIES]
    return [
        Cost(
            mean([original.bits(len(original.stored(codec))) for original in originals]),
            mean([original.psnr(codec, border) for original in originals]),
        )
        for codec in codecs
    ]


def table(costs: dict[str, Cost]) -> list[str]:
    """Markdown, a row for each way."""
    cells = [["way", "bits a pixel", "PSNR", *CODECS.values()]]
    for name, found in costs.items():
        codecs = [f"{found.codecs[kind]:.2f}" if kind in found.codecs else "-" for kind in CODECS]
        cells.append([name, f"{found.bits:.2f}", f"{found.psnr:.2f}", *codecs])
    return align(cells)


def label(way: str) -> str:
    """A way in few words.

    Example:
        >>> label("small_x4:DEFAULT"), label("small_x4:JPEG90@jpeg:90"), label("bicubic:4@jpeg:90")
        ('small_x4', 'small_x4 JPEG90', 'bicubic x4 as jpeg:90')
    """
    made, _, stored = way.partition("@")
    name = made.replace(":DEFAULT", "").replace("bicubic:", "bicubic x").replace(":", " ")
    return name if not stored or "JPEG" in made else f"{name} as {stored}"


def heights(costs: Sequence[Cost]) -> list[float]:
    """Where labels stand: at their points, or above the labels of neighbours, so that all can be read.

    Example:
        >>> heights([Cost(1.0, 27.0), Cost(1.1, 26.9), Cost(4.0, 27.0)])
        [27.5, 26.9, 27.0]
    """
    gap, width = 0.6, 2.0  # of a label: dB, and the ratio of the bits at its ends
    placed: dict[int, float] = {}
    for index in sorted(range(len(costs)), key=lambda each: costs[each].psnr):
        bits = costs[index].bits
        beside = [at for other, at in placed.items() if 1 / width < costs[other].bits / bits < width]
        placed[index] = max([costs[index].psnr, *(at + gap for at in beside)])
    return [placed[index] for index in range(len(costs))]


def draw(costs: dict[str, Cost], curves: dict[str, list[Cost]], folder: Path, out: Path) -> None:
    """Write the picture: codecs as curves, ways as points."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8.4, 5.4))
    for kind, line in curves.items():
        axis.plot([c.bits for c in line], [c.psnr for c in line], linewidth=1.2, label=CODECS[kind])
    for (name, found), height in zip(costs.items(), heights(list(costs.values())), strict=True):
        axis.plot(found.bits, found.psnr, "o", color="black", markersize=5)
        axis.annotate(
            label(name), (found.bits, height), xytext=(6, -3), textcoords="offset points", fontsize=8
        )
    axis.set(
        xscale="log",
        xlabel="bits for each pixel of HR",
        ylabel=f"PSNR on {folder.name}, RGB (dB)",
        title="An LR is no codec: what comes back, by bytes",
    )
    axis.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_xlim(0.1, 12)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; return 0, or 2 after an error."""
    parser = argparse.ArgumentParser(prog="rate_distortion.py", description="PSNR at equal bytes.")
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="of images")
    add("--way", nargs="+", required=True, help="MODEL:WEIGHTS or bicubic:SCALE, and @jpeg:90 for LR as JPEG")
    add("--limit", type=int, metavar="N", help="take the first N images of each folder")
    add("--draw", type=Path, metavar="FILE", help="a picture of the first folder")
    options = parser.parse_args(argv)
    try:
        ways = [Way.parse(text) for text in dict.fromkeys(options.way)]
        coarsest = max(way.scale for way in ways)
        for number, folder in enumerate(options.folders):
            images = find_images(folder)[: options.limit]
            originals = [Original(read_hr(path, coarsest)) for path in images]
            costs = {}
            for way in ways:
                costs[way.name] = cost(way, originals)
                print(f"{folder.name}: {way.name}", file=sys.stderr)
            print(
                "\n".join([f"{folder.name}, {len(images)} images, PSNR in dB on RGB", "", *table(costs), ""])
            )
            if options.draw is not None and number == 0:
                curves = {kind: curve(kind, originals, coarsest) for kind in CODECS}
                draw(costs, curves, folder, options.draw)
    except (RescalingError, OSError) as error:
        print(f"rate_distortion.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
