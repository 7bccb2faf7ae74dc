"""Everything that training can be told, as one dataclass and as a command line."""

import math
from argparse import ArgumentTypeError
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.training.degradations import Degradation, degradation_of
from invertible_rescaling.training.flags import OptionError, duration, flag, model_part

__all__ = ["OptionError", "TrainingConfig"]

Schedule = Literal["cosine", "steps"]
Precision = Literal["auto", "no", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
ImagesOn = Literal["auto", "cpu", "device"]
Graph = Literal["auto", "on", "off"]
Gan = Literal["srgan", "esrgan"]
Resume = Literal["auto", "never"]
Optimizer = Literal["auto", "soap", "adam", "adam-dct"]

# What may differ between the slices of one run; all else must be as it was, or the run would be another.
_FREE = frozenset(
    {"data", "val", "out", "download", "resume", "time_limit", "log_every", "validate_every"}
    | {"save_every", "quiet", "demo", "demo_minutes", "val_limit", "max_skipped_steps", "weights", "cpu"}
    | {"images_on", "stop_after", "fit", "graph"}
)


@dataclass(frozen=True)
class TrainingConfig:
    """The options of a run: what ``invertible-rescaling train --help`` lists, a field for each flag.

    Paths may be strings, durations seconds or strings (``"20m"``), and ``blocks`` one number. ``None`` and
    ``"auto"`` leave a choice to the model and the machine.

    Example:
        >>> from invertible_rescaling.training import TrainingConfig
        >>> TrainingConfig(data="photographs", model="small_x4", steps=2000).check()
        Traceback (most recent call last):
        ...
        invertible_rescaling.training.flags.OptionError: --data: there is no folder at 'photographs'
    """

    data: Annotated[
        Path | None, flag("data", "images in any subfolders, or DIV2K's layout", metavar="DIR")
    ] = None
    val: Annotated[
        Path | None, flag("data", "validation images; DIV2K's own where it is there", metavar="DIR")
    ] = None
    val_fraction: Annotated[
        float,
        flag(
            "data",
            "without --val: keep this share of the images, spread over --data, to validate on",
            metavar="F",
        ),
    ] = 0.0
    val_limit: Annotated[int | None, flag("data", "validate on the first N images only", metavar="N")] = None
    download: Annotated[
        Path | None, flag("data", "fetch DIV2K into DIR first and train on it", metavar="DIR")
    ] = None
    demo: Annotated[bool, flag("data", "train a small model on scikit-image's photographs")] = False
    demo_minutes: Annotated[float, flag("data", "how long --demo trains", metavar="M")] = 3.0
    sub_images: Annotated[
        int | None, flag("data", "draw patches from squares of SIZE; DIV2K's usual is 480", metavar="SIZE")
    ] = None
    sub_image_step: Annotated[int, flag("data", "from one square to the next", metavar="N")] = 240
    images_on: Annotated[ImagesOn, flag("data", "auto: on the GPU if they fit well")] = "auto"
    model: Annotated[str, flag("model", "any registered rescaler or super-resolver")] = "iirn_x4"
    blocks: Annotated[
        tuple[int, ...] | None,
        flag(
            "model",
            "couplings per stage: one number or one for each; --weights with fewer are grown to as many",
            metavar="N",
            nargs="+",
        ),
    ] = None
    subnet: Annotated[
        str | None,
        flag(
            "model",
            "registered sub-network of the couplings: crdb:growth=16",
            metavar="NAME[:OPTION=VALUE,...]",
        ),
    ] = None
    latent: Annotated[
        str | None,
        flag("model", "registered latent: wavelet:correction=none", metavar="NAME[:OPTION=VALUE,...]"),
    ] = None
    weights: Annotated[
        str | None,
        flag("model", "start from a checkpoint's path or address, or shipped ones: DEFAULT", metavar="WHICH"),
    ] = None
    start: Annotated[
        str,
        flag(
            "recipe",
            "linear: train single convolutions first and put them in; none; or a linear model's path, "
            "address or DEFAULT; auto: linear for what can start so and has no --weights",
            metavar="HOW",
            also="--begin",  # torchrun takes --start for an abbreviation of its own --start-method
        ),
    ] = "auto"
    start_steps: Annotated[int, flag("recipe", "of a linear start", metavar="N", also="--begin-steps")] = 2000
    steps: Annotated[
        int | None, flag("recipe", "by default 50,000 on a GPU, and what fits into an hour on a CPU")
    ] = None
    fit: Annotated[
        float | None,
        flag("recipe", "as many steps as fit into this time: 20m, 1.5h", metavar="TIME", type=duration),
    ] = None
    batch_size: Annotated[int | None, flag("recipe", "per process; by default 16 on a GPU, 4 on a CPU")] = (
        None
    )
    patch: Annotated[
        int | None, flag("recipe", "side of the HR crops; by default 144 on a GPU, 48 to 96 on a CPU")
    ] = None
    optimizer: Annotated[Optimizer, flag("recipe", "auto: soap for rescalers, adam for super-resolvers")] = (
        "auto"
    )
    lr: Annotated[
        float | None,
        flag("recipe", "peak learning rate; by default 3e-3, of adam 8e-4, with --weights 3e-4"),
    ] = None
    beta2: Annotated[float, flag("recipe", "of Adam: how long it remembers large gradients")] = 0.999
    schedule: Annotated[Schedule, flag("recipe", "steps: halve at every fifth")] = "cosine"
    warmup: Annotated[
        int | None,
        flag("recipe", "of linear warm-up; by default 20 and 5 % of all, at most 500", metavar="STEPS"),
    ] = None
    clip: Annotated[float, flag("recipe", "largest gradient norm")] = 0.1
    ema: Annotated[
        float | None,
        flag(
            "recipe",
            "of the averaged weights, 0 for none; by default 1 - 20/steps, 0.999 at most",
            metavar="DECAY",
        ),
    ] = None
    degrade: Annotated[
        tuple[str, ...],
        flag(
            "recipe",
            "what happens to LR, of which one is drawn for each image: jpeg:75-95, jpeg444:90, webp:80, "
            "avif:60-90, brightness:0.8-1.2, crop:0.5-1, none; + joins them",
            metavar="KIND:FROM-TO",
            nargs="+",
        ),
    ] = ()
    chroma: Annotated[float, flag("recipe", "weight of colour within the guide of LR")] = 1.0
    loss_weights: Annotated[
        tuple[float, float, float],
        flag("recipe", "of the restored image, LR and z", metavar=("SR", "LR", "Z"), nargs=3),
    ] = (1.0, 4.0, 0.0)
    gan: Annotated[
        Gan | None,
        flag(
            "recipe", "adversarial and perceptual loss of that paper, for super-resolvers; needs torchvision"
        ),
    ] = None
    precision: Annotated[Precision, flag("recipe", "of sub-networks; auto: bf16 on GPU")] = "auto"
    compile: Annotated[Compile, flag("recipe", "couplings; auto: on GPU")] = "auto"
    graph: Annotated[
        Graph, flag("recipe", "the step as one CUDA graph, in place of --compile; auto: on one GPU")
    ] = "auto"
    seed: Annotated[int, flag("recipe", "of weights, patches and noise")] = 0
    reversible: Annotated[
        bool, flag("recipe", "recompute activations: less memory, steps a third longer")
    ] = False
    cpu: Annotated[bool, flag("recipe", "stay on the CPU even if there is a GPU")] = False
    out: Annotated[Path, flag("run", "checkpoints, state, log and curves", metavar="DIR")] = Path(
        "runs/train"
    )
    resume: Annotated[Resume, flag("run", "auto: go on with the run in --out")] = "auto"
    time_limit: Annotated[
        float | None, flag("run", "stop cleanly in time: 600, 10m or 1.5h", metavar="TIME", type=duration)
    ] = None
    stop_after: Annotated[int | None, flag("run", "stop cleanly after N steps of this call", metavar="N")] = (
        None
    )
    validate_every: Annotated[int, flag("run", "steps from one validation to the next", metavar="STEPS")] = (
        1000
    )
    save_every: Annotated[int, flag("run", "steps from one saved state to the next", metavar="STEPS")] = 1000
    log_every: Annotated[int, flag("run", "steps from one line of the log to the next", metavar="STEPS")] = 50
    max_skipped_steps: Annotated[int, flag("run", "without a finite gradient in a row, before giving up")] = (
        20
    )
    quiet: Annotated[bool, flag("run", "no progress bar")] = False

    def __post_init__(self) -> None:
        for name in ("data", "val", "download", "out"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("fit", "time_limit"):
            if isinstance(getattr(self, name), str):
                try:
                    object.__setattr__(self, name, duration(getattr(self, name)))
                except ArgumentTypeError as error:
                    raise OptionError(f"{name}: {error}") from error
        if self.blocks is not None:
            given = (self.blocks,) if isinstance(self.blocks, int) else tuple(self.blocks)
            object.__setattr__(self, "blocks", given)

    @property
    def overrides(self) -> dict[str, Any]:
        """The model arguments that the command line replaces."""
        blocks = self.blocks[0] if self.blocks is not None and len(self.blocks) == 1 else self.blocks
        chosen = {"blocks": blocks, "subnet": model_part(self.subnet), "latent": model_part(self.latent)}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def degradation(self) -> Degradation | None:
        """What happens to LR in training."""
        try:
            return degradation_of(self.degrade) if self.degrade else None
        except ConfigError as error:
            raise OptionError(f"--degrade: {error}") from error

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
        if self.degrade:
            _ = self.degradation
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

    def check_data(self) -> None:
        """Refuse a configuration that names no images to train on.

        Raises:
            OptionError: so it is.
        """
        if not self.demo and self.data is None and self.download is None:
            raise OptionError("give --data DIR (images to train on), --download DIR (DIV2K) or --demo")
