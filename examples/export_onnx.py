r"""Write both directions of a model as ONNX files, and compare ONNX Runtime with PyTorch on photographs.

    pip install "invertible_rescaling[onnx]"
    python examples/export_onnx.py --model iirn_x4 --out onnx
    python examples/export_onnx.py --weights runs/mine/best.safetensors --out onnx --check photographs

MODEL_downscale.onnx maps hr (B, 3, H, W) in [0, 1], of any size, to lr with 8-bit values, and
MODEL_upscale.onnx lr to sr, which is cut to the original size: sr[..., :H, :W]. Their metadata says the
model, the SHA-256 of its weights and their licence, scale and configuration.

``--check`` runs both on photographs: LR must be the same in 99.9% of its values, SR within 1e-3, or the exit
code is 2. Without a folder they are some that scikit-image ships (which needs it, as extra [train] has it).
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from invertible_rescaling import GaussianLatent, RescalingError, create_model
from invertible_rescaling.errors import ConfigError, MissingDependencyError, UnknownNameError, first_line
from invertible_rescaling.export import OPSET, Downscale, Upscale, export_onnx
from invertible_rescaling.files import sha256_of
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.models import AnyModel
from invertible_rescaling.training.data import photograph
from invertible_rescaling.weights import read_metadata, weights_of

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
LEAST_SAME, MOST_APART = 0.999, 1e-3

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Agreement:
    """How far two ways to run one model are apart on one photograph.

    Attributes:
        same: the share of LR's values that are equal.
        lr: the largest difference of the others, in 8-bit steps.
        sr: the largest difference, of values in [0, 1], of what one LR is brought back to.
    """

    same: float
    lr: float
    sr: float

    @property
    def good(self) -> bool:
        """Whether that is close enough; NaN is not."""
        return self.same >= LEAST_SAME and self.sr <= MOST_APART


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files and compare; return 0, or 2 after an error, or 130 if interrupted."""
    options = parse(argv)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells which operators nobody asked for
    try:
        return run(options)
    except (RescalingError, OSError) as error:
        print(f"export_onnx.py: {first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("export_onnx.py: interrupted", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    """Do what was asked for.

    Raises:
        RescalingError, OSError: it cannot be done.
    """
    if options.check is not None and find_spec("onnxruntime") is None:
        raise MissingDependencyError("--check needs ONNX Runtime: pip install 'invertible_rescaling[onnx]'")
    pictures = [] if options.check is None else photographs(options.check, options.limit)
    model, facts = load(options.model, options.weights, options.latent)
    options.out.mkdir(parents=True, exist_ok=True)
    files = []
    for direction in (Downscale(model), Upscale(model)):
        file = options.out / f"{options.model}_{direction.name}.onnx"
        export_onnx(direction, file, opset=options.opset, metadata=facts)
        print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB, opset {options.opset})", flush=True)
        files.append(file)
    if options.check is None:
        return 0
    down, up = map(runner, files)
    print("| photograph | size | LR the same | LR apart, in steps | SR apart |")
    print("|---|---|---|---|---|")
    bad = []
    for name, read in pictures:
        hr = from_uint8(read()).unsqueeze(0)
        found = compare(model, hr, down, up)
        size = "x".join(map(str, hr.shape[2:]))
        print(f"| {name} | {size} | {found.same:.4%} | {found.lr:.0f} | {found.sr:.1e} |", flush=True)
        bad += [] if found.good else [name]
    if bad:
        wanted = f"{LEAST_SAME:.1%} of LR the same and SR within {MOST_APART:g}"
        raise ConfigError(f"ONNX Runtime and PyTorch are apart on {', '.join(bad)}: wanted {wanted}")
    return 0


def load(name: str, weights: str, latent: str | None) -> tuple[AnyModel, dict[str, str]]:
    """A model ready for export, and what its files are to say of it.

    Raises:
        RescalingError: there is no such model, its weights are no good, or its latent is noise.
    """
    model = create_model(name, weights=weights, **({} if latent is None else {"latent": latent})).eval()
    used = getattr(model, "latent", None)
    if isinstance(used, GaussianLatent) and used.std > 0:
        raise ConfigError(f"{name} is fed noise, which a file cannot repeat; pass --latent zero, its mean")
    return model, {"model": name, **facts_of(name, weights)}


def facts_of(name: str, weights: str) -> dict[str, str]:
    """The licence and the hash of shipped weights or of a file; of an address's weights nothing is stated."""
    try:
        member = weights_of(name)[weights]
    except (KeyError, UnknownNameError):
        if not Path(weights).is_file():
            return {"licence": "not stated"}
        licence = read_metadata(weights)["metadata"].get("licence") or "not stated"
        return {"licence": licence, "weights_sha256": sha256_of(Path(weights))}
    return {"licence": member.licence, "weights_sha256": member.sha256}


def runner(file: Path) -> Run:
    """ONNX Runtime on a file, on as many threads as PyTorch has."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])


def compare(model: AnyModel, hr: Tensor, down: Run, up: Run) -> Agreement:
    """Run both directions of a model both ways, ``up`` on the LR that the model made."""
    lr = model.downscale(hr)
    steps = (255 * (down(hr) - lr)).abs().round()
    sr = model.upscale(lr)
    return Agreement(float((steps == 0).float().mean()), float(steps.max()), float((up(lr) - sr).abs().max()))


def photographs(folder: str, limit: int | None) -> list[tuple[str, Callable[[], Tensor]]]:
    """Names, and what reads the photographs ``(3, H, W)``, of a folder, or of scikit-image for none.

    Raises:
        RescalingError: there are none.
    """
    if folder:
        return [(path.stem, partial(read_image, path)) for path in find_images(Path(folder))[:limit]]
    if find_spec("skimage") is None:
        raise MissingDependencyError(
            "--check without a folder needs scikit-image: pip install 'invertible_rescaling[train]'"
        )
    return [(name, partial(photograph, name)) for name in PHOTOGRAPHS[:limit]]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself ends with code 2 on a mistake in it."""
    parser = argparse.ArgumentParser(
        prog="export_onnx.py", description="Write both directions of a model as ONNX files."
    )
    add = parser.add_argument
    add("--model", default="iirn_x4", metavar="NAME", help="(default: iirn_x4)")
    add("--weights", default="DEFAULT", metavar="W", help="V1, a checkpoint, its address (default: DEFAULT)")
    add("--latent", metavar="NAME", help="in place of the model's own: zero, wavelet")
    add("--out", type=Path, default=Path("onnx"), metavar="DIR", help="(default: onnx)")
    add("--opset", type=int, default=OPSET, metavar="N", help=f"of ONNX, {OPSET} at least (default: {OPSET})")
    add(
        "--check",
        nargs="?",
        const="",
        metavar="DIR",
        help="compare ONNX Runtime with PyTorch on photographs, of a folder or of scikit-image",
    )
    add("--limit", type=at_least_one, metavar="N", help="check on the first N photographs only")
    return parser.parse_args(argv)


def at_least_one(text: str) -> int:
    """A parser of positive integers."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
