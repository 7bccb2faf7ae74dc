r"""Draw what a model stores: its LR beside bicubic's, and what each brings back.

    python tools/draw_samples.py --model iirn_x4 --out docs/images/samples_iirn_x4.png
    python tools/draw_samples.py --weights runs/mine/best.safetensors --images photographs --out mine.png
    python tools/draw_samples.py --crop astronaut 320 224 --crop coffee 160 0 --out crops.png

One row a photograph: LR by bicubic, LR by the model, eight times their difference around grey, and a crop of
the original, of bicubic up, and of the model's SR, with PSNR under each. Without ``--images`` the photographs
are some that scikit-image ships. With ``--crop``, one row for each crop of 96x96 pixels from there on: LR by
the model, the original, bicubic up and SR, with PSNR of the crop and of the whole photograph.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from invertible_rescaling import InvertibleRescaler, RescalingError, create_model, load_checkpoint, psnr
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.images.contact_sheet import SIDE, Panel, compose
from invertible_rescaling.training.data import photograph

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
CROP = SIDE // 2  # enlarged twice
AMPLIFIED = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; return 0, or 2 after an error."""
    options = parse(argv)
    try:
        model = load(options.model, options.weights)
        if options.crop:
            rows = [crop_panels(model, *crop) for crop in crops(options.crop, options.images)]
        else:
            rows = [panels(model, hr, name) for name, hr in images(options.images, options.limit)]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        compose(rows).save(options.out)
    except (RescalingError, OSError, ValueError) as error:  # Pillow's word for a suffix it does not know
        print(f"draw_samples.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}")
    return 0


def load(name: str, weights: str) -> InvertibleRescaler:
    """The model with weights by name, path or address; a file's own structure goes before the name's."""
    model = load_checkpoint(weights) if Path(weights).is_file() else create_model(name, weights=weights)
    if not isinstance(model, InvertibleRescaler):
        raise ConfigError(f"{name} is a {type(model).__name__}, not an InvertibleRescaler; name one that is")
    return model.eval()


def images(folder: Path | None, limit: int | None) -> list[tuple[str, Tensor]]:
    """Names and photographs ``(1, 3, H, W)`` in [0, 1]."""
    if folder is None:
        return [(name, from_uint8(photograph(name)).unsqueeze(0)) for name in PHOTOGRAPHS[:limit]]
    return [(path.stem, from_uint8(read_image(path)).unsqueeze(0)) for path in find_images(folder)[:limit]]


def crops(wanted: Sequence[Sequence[str]], folder: Path | None) -> list[tuple[str, Tensor, int, int]]:
    """Names, photographs as of :func:`images`, and the upper left corner of a crop of each."""
    photographs = dict(images(folder, None)) if folder is not None else {}
    found = []
    for name, *corner in wanted:
        try:
            top, left = (int(word) for word in corner)
        except ValueError:
            raise ConfigError(f"--crop {name} needs two whole numbers, TOP and LEFT, got {corner}") from None
        if folder is None:
            try:
                photographs[name] = from_uint8(photograph(name)).unsqueeze(0)
            except AttributeError:
                raise ConfigError(f"--crop {name}: scikit-image has no photograph of that name") from None
        elif name not in photographs:
            raise ConfigError(f"--crop {name}: no such picture in {str(folder)!r}")
        hr = photographs[name]
        if not (0 <= top <= hr.shape[2] - CROP and 0 <= left <= hr.shape[3] - CROP):
            raise ConfigError(
                f"--crop {name} {top} {left}: {CROP} pixels from there leave its {hr.shape[2]}x{hr.shape[3]}"
            )
        found.append((name, hr, top, left))
    return found


def crop_panels(model: InvertibleRescaler, name: str, hr: Tensor, top: int, left: int) -> list[Panel]:
    """A row of the sheet on one crop."""
    lr, _, restored = rescaled(model, hr)
    crop = (..., slice(top, top + CROP), slice(left, left + CROP))

    def quality(sr: Tensor) -> str:
        return f"{float(psnr(sr[crop], hr[crop])):.1f} dB, of all {float(psnr(sr, hr)):.1f}"

    return [
        Panel(_shown(lr), f"{name}\nLR, ours"),
        Panel(hr[crop], "original, crop\n"),
        *(Panel(sr[crop], f"{key}\n{quality(sr)}") for key, sr in restored.items()),
    ]


def rescaled(model: InvertibleRescaler, hr: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """LR by the model, LR by bicubic, and what each of the two brings back."""
    size = (hr.shape[2], hr.shape[3])
    lr = model.downscale(hr)
    small = quantize(bicubic_resize(hr, (lr.shape[2], lr.shape[3])))
    bicubic = bicubic_resize(small, size, antialias=False).clamp(0, 1)
    return lr, small, {"bicubic up": bicubic, "ours": model.upscale(lr, size=size)}


def panels(model: InvertibleRescaler, hr: Tensor, name: str) -> list[Panel]:
    """One row of the sheet."""
    lr, small, restored = rescaled(model, hr)
    quality = {key: float(psnr(sr, hr, border=model.scale)) for key, sr in restored.items()}
    top, left = (max(0, (length - CROP) // 2) for length in hr.shape[2:])
    crop = (..., slice(top, top + CROP), slice(left, left + CROP))
    difference = (0.5 + AMPLIFIED * (lr - small)).clamp(0, 1)
    likeness = f"{float(psnr(lr, small)):.1f} dB to bicubic"
    return [
        Panel(_shown(small), f"{name}\nLR, bicubic"),
        Panel(_shown(lr), f"LR, ours\n{likeness}"),
        Panel(_shown(difference), f"difference\n{AMPLIFIED} times"),
        Panel(hr[crop], "original, crop\n"),
        *(Panel(sr[crop], f"{key}\n{quality[key]:.2f} dB") for key, sr in restored.items()),
    ]


def _shown(small: Tensor) -> Tensor:
    """The middle of a small picture, as much of it as fits with whole pixels."""
    height, width = small.shape[2:]
    side = min(height, width, SIDE)
    top, left = (height - side) // 2, (width - side) // 2
    return small[:, :, top : top + side, left : left + side]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="draw_samples.py", description="Draw a model's LR and SR beside bicubic's, with PSNR."
    )
    add = parser.add_argument
    add("--model", default="iirn_x4", metavar="NAME", help="(default: iirn_x4)")
    add("--weights", default="DEFAULT", help="a name, a checkpoint or an address (default: DEFAULT)")
    add("--images", type=Path, metavar="DIR", help="photographs; some of scikit-image's by default")
    add("--limit", type=int, default=3, metavar="N", help="how many of them (default: 3)")
    add(
        "--crop", nargs=3, action="append", metavar=("NAME", "TOP", "LEFT"), help="a row on that crop instead"
    )
    add("--out", type=Path, required=True, metavar="FILE", help="a .png file")
    options = parser.parse_args(argv)
    if options.limit < 1:
        parser.error(f"--limit must be at least 1, got {options.limit}")
    return options


if __name__ == "__main__":
    sys.exit(main())
