"""Everything that training can be told, as one dataclass and as a command line."""

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from invertible_rescaling.errors import RescalingError

Schedule = Literal["cosine", "steps"]
Precision = Literal["auto", "no", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
ImagesOn = Literal["auto", "cpu", "device"]
Graph = Literal["auto", "on", "off"]
Gan = Literal["srgan", "esrgan"]
Optimizer = Literal["auto", "soap", "adam", "adam-dct"]

# What may differ between the slices of one run; all else must be as it was, or the run would be another.
_FREE = frozenset(
    {"data", "val", "out", "download", "resume", "time_limit", "log_every", "validate_every"}
    | {"save_every", "quiet", "demo", "demo_minutes", "val_limit", "max_skipped_steps", "weights", "cpu"}
    | {"images_on", "stop_after", "fit", "graph"}
)


class OptionError(RescalingError, ValueError):
    """TrainingConfig that do not fit together."""


@dataclass(frozen=True)
class TrainingConfig:
    """The options of a run; ``python -m invertible_rescaling.training --help`` says what each means."""

    data: Path | None = None
    val: Path | None = None
    val_limit: int | None = None
    val_fraction: float = 0.0
    download: Path | None = None
    demo: bool = False
    demo_minutes: float = 3.0
    out: Path = Path("runs/train")
    model: str = "iirn_x4"
    blocks: tuple[int, ...] | None = None
    subnet: str | None = None
    latent: str | None = None
    weights: str | None = None
    start: str = "auto"
    start_steps: int = 2000
    steps: int | None = None
    fit: float | None = None
    batch_size: int | None = None
    patch: int | None = None
    sub_images: int | None = None
    sub_image_step: int = 240
    images_on: ImagesOn = "auto"
    optimizer: Optimizer = "auto"
    lr: float | None = None
    schedule: Schedule = "cosine"
    warmup: int | None = None
    beta2: float = 0.999
    clip: float = 0.1
    ema: float | None = None
    loss_weights: tuple[float, float, float] = (1.0, 4.0, 0.0)
    chroma: float = 1.0
    gan: Gan | None = None
    precision: Precision = "auto"
    compile: Compile = "auto"
    graph: Graph = "auto"
    seed: int = 0
    resume: str = "auto"
    time_limit: float | None = None
    stop_after: int | None = None
    validate_every: int = 1000
    save_every: int = 1000
    log_every: int = 50
    max_skipped_steps: int = 20
    quiet: bool = False
    cpu: bool = False
    reversible: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        """The model arguments that the command line replaces."""
        blocks = self.blocks[0] if self.blocks is not None and len(self.blocks) == 1 else self.blocks
        chosen = {"blocks": blocks, "subnet": _part(self.subnet), "latent": _part(self.latent)}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def fixed(self) -> dict[str, Any]:
        """The options that make a run what it is, as JSON-able data; resuming compares them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FREE}
        values["beta2"] = self.beta2 if self.optimizer == "adam" else None
        values["start_steps"] = self.start_steps if self.start == "linear" else None
        values["sub_image_step"] = self.sub_image_step if self.sub_images else None
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def check(self) -> None:
        """Refuse what cannot work before anything is read or written.

        Raises:
            OptionError: naming the option, its value and the rule.
        """
        if not self.demo and self.data is None and self.download is None:
            raise OptionError("give --data DIR (images to train on), --download DIR (DIV2K) or --demo")
        if self.data is not None and not self.data.is_dir():
            raise OptionError(f"--data: there is no folder at {str(self.data)!r}")
        if self.val is not None and not self.val.is_dir():
            raise OptionError(f"--val: there is no folder at {str(self.val)!r}")
        if self.steps is not None and self.fit is not None:
            raise OptionError("--steps and --fit both say how long the run is; leave one of them out")
        counts = ("steps", "start_steps", "batch_size", "patch", "validate_every", "save_every", "log_every")
        for name in (*counts, "max_skipped_steps", "val_limit", "stop_after", "sub_image_step"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        for name in ("lr", "clip", "demo_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(f"--{name.replace('_', '-')} must be finite and above 0, got {value}")
        for name in ("ema", "beta2", "val_fraction"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise OptionError(f"--{name.replace('_', '-')} must be in [0, 1), got {value}")
        if self.warmup is not None and self.warmup < 0:
            raise OptionError(f"--warmup must be at least 0, got {self.warmup}")
        if not 0 <= self.chroma < math.inf:
            raise OptionError(f"--chroma must be finite and at least 0, got {self.chroma}")
        if self.val is not None and self.val_fraction:
            raise OptionError(
                f"--val-fraction {self.val_fraction:g} keeps validation images from --data; "
                "with --val leave it out"
            )
        if not all(0 <= weight < math.inf for weight in self.loss_weights) or not any(self.loss_weights):
            raise OptionError(
                "--loss-weights must be finite and at least 0, and not all 0, got "
                f"{' '.join(f'{weight:g}' for weight in self.loss_weights)}"
            )
        if self.gan is not None and ((self.patch or 32) < 32 or self.precision == "fp16"):
            raise OptionError(
                "--gan needs a --patch of at least 32, for its discriminator, and another --precision than "
                f"fp16, got {self.patch} and {self.precision}"
            )
        _ = self.overrides
        if not 0 <= self.seed < 2**31:
            raise OptionError(f"--seed must be from 0 to {2**31 - 1}, got {self.seed}")
        if self.sub_images is not None and self.sub_images < (self.patch or 1):
            raise OptionError(
                f"--sub-images must be at least --patch, got {self.sub_images} and {self.patch}"
            )


def _part(text: str | None) -> str | dict[str, Any] | None:
    """A sub-network or latent as a model takes it: a name, or a dictionary with the name and options.

    Values are read as JSON where they are some, and as text otherwise.
    """
    name, colon, rest = (text or "").partition(":")
    if not colon:
        return text
    part: dict[str, Any] = {}
    for item in rest.split(","):
        option, equals, value = item.partition("=")
        if not (name and option.isidentifier() and equals) or option == "name" or option in part:
            raise OptionError(
                f"{text!r}: options follow a name as in wavelet:correction=none,wavelet=haar, "
                f"each once; {item!r} is none"
            )
        try:
            part[option] = json.loads(value)
        except ValueError:
            part[option] = value
    return {"name": name, **part}


def parse_options(argv: Sequence[str] | None = None, prog: str | None = None) -> TrainingConfig:
    """Parse the command line; argparse ends the program on a misuse, with exit code 2."""
    d = TrainingConfig()
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train a rescaler or a super-resolver on any folder of images; run again, it resumes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument_group("data").add_argument
    add("--data", type=Path, metavar="DIR", help="images in any subfolders, or DIV2K's layout")
    add("--val", type=Path, metavar="DIR", help="validation images; DIV2K's own where it is there")
    add(
        "--val-fraction",
        type=float,
        default=d.val_fraction,
        metavar="F",
        help="without --val: keep this share of the images, spread over --data, to validate on",
    )
    add("--val-limit", type=int, metavar="N", help="validate on the first N images only")
    add("--download", type=Path, metavar="DIR", help="fetch DIV2K into DIR first and train on it")
    add("--demo", action="store_true", help="train a small model on scikit-image's photographs")
    add("--demo-minutes", type=float, default=d.demo_minutes, metavar="M", help="how long --demo trains")
    add(
        "--sub-images",
        type=int,
        metavar="SIZE",
        help="draw patches from squares of SIZE; DIV2K's usual is 480",
    )
    add(
        "--sub-image-step",
        type=int,
        default=d.sub_image_step,
        metavar="N",
        help="from one square to the next",
    )
    add(
        "--images-on",
        choices=get_args(ImagesOn),
        default=d.images_on,
        help="auto: on the GPU if they fit well",
    )
    add = parser.add_argument_group("model").add_argument
    add("--model", default=d.model, help="any registered rescaler or super-resolver")
    add(
        "--blocks",
        type=int,
        nargs="+",
        metavar="N",
        help="couplings per stage: one number or one for each; --weights with fewer are grown to as many",
    )
    add(
        "--subnet",
        metavar="NAME[:OPTION=VALUE,...]",
        help="registered sub-network of the couplings: crdb:growth=16",
    )
    add("--latent", metavar="NAME[:OPTION=VALUE,...]", help="registered latent: wavelet:correction=none")
    add(
        "--weights",
        metavar="WHICH",
        help="start from a checkpoint's path or address, or shipped ones: DEFAULT",
    )
    add = parser.add_argument_group("recipe").add_argument
    add(
        "--start",
        "--begin",  # torchrun takes --start for an abbreviation of its own --start-method
        default=d.start,
        metavar="HOW",
        help="linear: train single convolutions first and put them in; none; or a linear model's path, "
        "address or DEFAULT; auto: linear for what can start so and has no --weights",
    )
    add(
        "--start-steps",
        "--begin-steps",
        type=int,
        default=d.start_steps,
        metavar="N",
        help="of a linear start",
    )
    add("--steps", type=int, help="by default 50,000 on a GPU, and what fits into an hour on a CPU")
    add("--fit", type=duration, metavar="TIME", help="as many steps as fit into this time: 20m, 1.5h")
    add("--batch-size", type=int, help="per process; by default 16 on a GPU, 4 on a CPU")
    add("--patch", type=int, help="side of the HR crops; by default 144 on a GPU, 48 to 96 on a CPU")
    add(
        "--optimizer",
        choices=get_args(Optimizer),
        default=d.optimizer,
        help="auto: soap for rescalers, adam for super-resolvers",
    )
    add("--lr", type=float, help="peak learning rate; by default 3e-3, of adam 8e-4, with --weights 3e-4")
    add("--beta2", type=float, default=d.beta2, help="of Adam: how long it remembers large gradients")
    add("--schedule", choices=get_args(Schedule), default=d.schedule, help="steps: halve at every fifth")
    add(
        "--warmup",
        type=int,
        metavar="STEPS",
        help="of linear warm-up; by default 20 and 5 %% of all, at most 500",
    )
    add("--clip", type=float, default=d.clip, help="largest gradient norm")
    add(
        "--ema",
        type=float,
        metavar="DECAY",
        help="of the averaged weights, 0 for none; by default 1 - 20/steps, 0.999 at most",
    )
    add("--chroma", type=float, default=d.chroma, help="weight of colour within the guide of LR")
    add("--loss-weights", type=float, nargs=3, default=d.loss_weights, metavar=("SR", "LR", "Z"))
    add(
        "--gan",
        choices=get_args(Gan),
        help="adversarial and perceptual loss of that paper, for super-resolvers; needs torchvision",
    )
    add(
        "--precision",
        choices=get_args(Precision),
        default=d.precision,
        help="of sub-networks; auto: bf16 on GPU",
    )
    add("--compile", choices=get_args(Compile), default=d.compile, help="couplings; auto: on GPU")
    add(
        "--graph",
        choices=get_args(Graph),
        default=d.graph,
        help="the step as one CUDA graph, in place of --compile; auto: on one GPU",
    )
    add("--seed", type=int, default=d.seed)
    add("--reversible", action="store_true", help="recompute activations: less memory, steps a third longer")
    add("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    add = parser.add_argument_group("run").add_argument
    add("--out", type=Path, default=d.out, metavar="DIR", help="checkpoints, state, log and curves")
    add("--resume", choices=("auto", "never"), default=d.resume, help="auto: go on with the run in --out")
    add("--time-limit", type=duration, metavar="TIME", help="stop cleanly in time: 600, 10m or 1.5h")
    add("--stop-after", type=int, metavar="N", help="stop cleanly after N steps of this call")
    add("--validate-every", type=int, default=d.validate_every, metavar="STEPS")
    add("--save-every", type=int, default=d.save_every, metavar="STEPS")
    add("--log-every", type=int, default=d.log_every, metavar="STEPS")
    add("--max-skipped-steps", type=int, default=d.max_skipped_steps, help="in a row, before giving up")
    add("--quiet", action="store_true", help="no progress bar")
    values = vars(parser.parse_args(argv))
    if values["blocks"] is not None:
        values["blocks"] = tuple(values["blocks"])
    values["loss_weights"] = tuple(values["loss_weights"])
    return TrainingConfig(**values)


def duration(text: str) -> float:
    """Turn ``600``, ``90s``, ``10m`` or ``1.5h`` into seconds.

    Raises:
        ArgumentTypeError: anything else, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 600, 90s, 10m or 1.5h")
    return seconds
