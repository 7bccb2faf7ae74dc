"""Draw the front of PSNR against multiply-adds: every model with weights, and bicubic, at each scale.

    python tools/draw_front.py ../shared/data/benchmarks/BSD100 --out docs/images/front.png

PSNR (RGB) and multiply-adds of models are those that their weights state; both directions count, for each
pixel of HR. Bicubic is measured on the folder, which is the benchmark that is drawn. Needs matplotlib.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.measuring import Figures, figures_of, read_hr
from invertible_rescaling import RescalingError, list_models
from invertible_rescaling.errors import ImageError
from invertible_rescaling.evaluation import bicubic_rescale
from invertible_rescaling.images import find_images
from invertible_rescaling.weights import weights_of


@dataclass(frozen=True)
class Point:
    """A model at its scale; ``multiply_adds`` of both directions, for each pixel of HR."""

    model: str
    scale: int
    multiply_adds: float
    psnr: float


def points(benchmark: str) -> list[Point]:
    """Every model whose newest weights state a PSNR on a benchmark."""
    found = []
    for name in list_models(pretrained=True):
        weights = weights_of(name)["DEFAULT"].value
        if benchmark in weights.metrics:
            height, width = weights.multiply_adds["hr_size"]
            cost = weights.multiply_adds["downscale"] + weights.multiply_adds["upscale"]
            psnr = float(weights.metrics[benchmark]["psnr_rgb"] or 0.0)
            found.append(Point(name, weights.config["scale"], cost / (height * width), psnr))
    return found


def front(of_one_scale: Sequence[Point]) -> list[Point]:
    """The points that no cheaper one reaches, cheapest first.

    Example:
        >>> a, b, c = Point("a", 2, 1, 30.0), Point("b", 2, 2, 29.0), Point("c", 2, 3, 31.0)
        >>> [point.model for point in front([c, b, a])]
        ['a', 'c']
    """
    best: list[Point] = []
    for point in sorted(of_one_scale, key=lambda point: (point.multiply_adds, -point.psnr)):
        if not best or point.psnr > best[-1].psnr:
            best.append(point)
    return best


def bicubic(folder: Path, scale: int) -> float:
    """The mean PSNR of bicubic down and up on the images of a folder.

    Raises:
        ImageError: there are none.
    """
    rescale = bicubic_rescale(scale)
    images = find_images(folder)
    return Figures.mean([figures_of(read_hr(path, scale), rescale, scale) for path in images]).psnr_rgb


def draw(found: Sequence[Point], folder: Path, out: Path) -> None:
    """Write the picture, one panel a scale."""
    import matplotlib.pyplot as plt

    scales = sorted({point.scale for point in found})
    figure, axes = plt.subplots(1, len(scales), figsize=(5.2 * len(scales), 4.4), squeeze=False)
    for scale, axis in zip(scales, axes[0], strict=True):
        here = [point for point in found if point.scale == scale]
        line, reference = front(here), bicubic(folder, scale)
        axis.axhline(reference, color="grey", linestyle="--", linewidth=1)
        axis.text(
            0.99,
            reference,
            "bicubic",
            color="grey",
            ha="right",
            va="bottom",
            transform=axis.get_yaxis_transform(),
        )
        axis.plot([p.multiply_adds for p in line], [p.psnr for p in line], color="tab:blue", linewidth=1)
        for point in here:
            on_front = point in line
            axis.plot(point.multiply_adds, point.psnr, "o", color="tab:blue" if on_front else "tab:orange")
            axis.annotate(
                point.model.removesuffix(f"_x{scale}"),
                (point.multiply_adds, point.psnr),
                xytext=(0, 7 if on_front else -13),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axis.set(
            xscale="log", title=f"x{scale}", xlabel="multiply-adds for each pixel of HR, both directions"
        )
        axis.margins(0.16)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"PSNR on {folder.name}, RGB (dB)")
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; return 0, or 2 after an error."""
    parser = argparse.ArgumentParser(prog="draw_front.py", description="Draw PSNR against multiply-adds.")
    parser.add_argument("folder", type=Path, help="a benchmark that the weights state figures of: BSD100")
    parser.add_argument("--out", type=Path, default=Path("front.png"), metavar="FILE")
    options = parser.parse_args(argv)
    try:
        found = points(options.folder.name)
        if not found:
            raise ImageError(
                f"no weights state figures on {options.folder.name!r}; try Set5, Set14 or BSD100"
            )
        draw(found, options.folder, options.out)
    except (RescalingError, OSError) as error:
        print(f"draw_front.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
