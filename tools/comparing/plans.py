"""Which variants are trained, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2)
IIRN = "IIRN: CRDB, wavelet latent"


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        row: what its table calls it.
        scale: that of the model.
        seed: of weights, patches and noise.
        options: fields of :class:`~invertible_rescaling.training.TrainingConfig`.
        start: the name of the trial with whose linear code it begins.
        as_long_as: the row whose core seconds it takes, of the same plan, scale and seed, in place of steps.
        fills: whether it takes the core minutes that the program is given, a linear start among them.
    """

    row: str
    scale: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    as_long_as: str | None = None
    fills: bool = False

    @property
    def name(self) -> str:
        """Of its folder: ``x4_iirn_crdb_wavelet_latent_0``."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.row.lower()).split()
        return "_".join([f"x{self.scale}", *words, str(self.seed)])


def claims() -> list[Trial]:
    """What the paper says of IIRN and its parts, in short runs of two couplings a stage."""
    return [trial for seed in SEEDS for scale in (2, 4) for trial in _claims(scale, seed)]


def _claims(scale: int, seed: int) -> list[Trial]:
    short = {2: {"patch": 32, "steps": 600}, 4: {"patch": 48, "steps": 400}}[scale]
    iirn = {"model": f"iirn_x{scale}", "blocks": 2, **short}
    irn = iirn | {"model": f"irn_x{scale}"}
    codes = {latent: _code(latent, scale, seed) for latent in ("wavelet", "zero", "gaussian")}

    def trial(row: str, base: dict[str, Any], latent: str, **options: Any) -> Trial:
        longer = options.pop("as_long_as", None)
        start = None if options.get("start") == "none" else codes[latent].name
        told = base | {"latent": latent} | options
        if longer is not None:
            del told["steps"]
        return Trial(row, scale, seed, told, start, longer)

    compared = [
        trial(IIRN, iirn, "wavelet"),
        trial("without attention", iirn, "wavelet", subnet="crdb:attention=false"),
        trial("without dilation", iirn, "wavelet", subnet="crdb:dilation=1"),
        trial("DenseBlock", iirn, "wavelet", subnet="dense"),
        trial("zeros for z", iirn, "zero"),
        trial("Gaussian z", iirn, "gaussian"),
        trial("IRN with zeros for z", irn, "zero"),
        trial("IRN with zeros for z, as long as IIRN", irn, "zero", as_long_as=IIRN),
        trial("IRN as published: DenseBlock, Gaussian z", irn, "gaussian"),
    ]
    if seed == 0:  # RRDB takes four times as long as the others
        compared += [
            trial("without the linear start", iirn, "wavelet", start="none"),
            trial("RRDB, without the linear start", iirn, "wavelet", subnet="rrdb", start="none"),
        ]
    return [*codes.values(), *compared]


def _code(latent: str, scale: int, seed: int) -> Trial:
    options = {"model": f"linear_x{scale}", "latent": latent, "steps": 2000}
    return Trial(f"linear code, {latent} z", scale, seed, options)


def table1() -> list[Trial]:
    """Every system of Mo & Chen's Table 1 that can be trained without other weights, and the small models."""
    once = ("srcnn_x4", "srresnet_x4", "edsr_x4", "esrgan_x4", "linear_x4", "small_x4")
    zeros = {"model": "irn_x4", "latent": "zero"}
    trials = [Trial("IIRN", 4, seed, {"model": "iirn_x4"}, fills=True) for seed in SEEDS]
    trials += [Trial("IRN with zeros for z", 4, seed, zeros, fills=True) for seed in SEEDS]
    trials += [Trial(name, 4, 0, {"model": name}, fills=True) for name in once]
    return sorted(trials, key=lambda trial: trial.seed)


PLANS: dict[str, Sequence[Trial]] = {"claims": claims(), "table1": table1()}
