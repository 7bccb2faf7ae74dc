r"""What comes back of an LR that was stored with loss: PSNR on RGB, by codec, of models and of bicubic.

    python tools/measure_codecs.py DIR/Set5 --model small_x4:DEFAULT small_x4:JPEG90 edsr_x4:DEFAULT

Prints a Markdown table, a row for each codec. Super-resolvers enlarge bicubic LR that went through the same;
the other figures of LR are its likeness to bicubic's before it is stored. HR is cropped to a multiple of the
scale, and a border of ``scale`` pixels left out, as in ``tools/evaluate.py``.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from evaluation.measuring import read_hr
from evaluation.methods import SEED, model_of, through_of
from evaluation.report import align
from invertible_rescaling import RescalingError
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.evaluation import Rescale, bicubic_rescale, measure, model_rescale
from invertible_rescaling.images import find_images

CODECS = (
    *("none", "jpeg444:95", "jpeg444:90", "jpeg:95", "jpeg:90", "jpeg:80", "jpeg:70", "jpeg:50"),
    *("jpeg:90+jpeg:85", "webp:90", "webp:75", "avif:90"),
)


def table(
    images: Sequence[Path], models: Sequence[str], codecs: Sequence[str], said: Callable[[str], None]
) -> list[str]:
    """Measure all, and lay it out.

    Raises:
        RescalingError: there is no such model, or an image cannot be read.
    """
    made = {name: model_of(name) for name in models}
    scales = {model.scale for model in made.values()}
    if len(scales) != 1:
        raise ConfigError(f"models of one scale are compared, got {sorted(scales)}")
    (scale,) = scales
    heads = ["LR stored as", "bicubic", *made]
    cells = [heads]
    likeness: dict[str, float] = {}
    for codec in codecs:
        through = through_of(None if codec == "none" else codec)
        rows: dict[str, Rescale] = {"bicubic": bicubic_rescale(scale, through=through, seed=SEED)}
        rows |= {name: model_rescale(model, through=through, seed=SEED) for name, model in made.items()}
        means = {name: mean(images, rescale, scale) for name, rescale in rows.items()}
        likeness |= {name: lr for name, (_, lr) in means.items()}
        cells.append([codec, *(f"{sr:.2f}" for sr, _ in means.values())])
        said(codec)
    cells.append(["LR against bicubic", *("same" if lr > 99 else f"{lr:.2f}" for lr in likeness.values())])
    return align(cells)


@torch.no_grad()
def mean(images: Sequence[Path], rescale: Rescale, scale: int) -> tuple[float, float]:
    """PSNR of SR, and of LR against bicubic's, on RGB, means over the images."""
    found = [measure(rescale, read_hr(path, scale), scale).figures for path in images]
    sr, lr = (sum(min(f[name], 100.0) for f in found) / len(found) for name in ("psnr_rgb", "lr_psnr_rgb"))
    return sr, lr


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 0, or 2 after an error."""
    parser = argparse.ArgumentParser(
        prog="measure_codecs.py", description="PSNR of what comes back of an LR that was stored with loss."
    )
    add = parser.add_argument
    add("folder", type=Path, help="of images")
    add("--model", nargs="+", required=True, metavar="NAME:WEIGHTS", help="of one scale")
    add("--codec", nargs="+", default=CODECS, metavar="CODEC", help="as for train --degrade")
    add("--limit", type=int, metavar="N", help="take the first N images")
    options = parser.parse_args(argv)
    try:
        images = find_images(options.folder)[: options.limit]
        lines = table(images, options.model, options.codec, lambda codec: print(codec, file=sys.stderr))
    except (RescalingError, OSError) as error:
        print(f"measure_codecs.py: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    print(f"\nPSNR in dB, RGB, {len(images)} images of {options.folder.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
