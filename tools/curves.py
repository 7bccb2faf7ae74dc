"""What the logs of runs say, and a picture of it: validation PSNR and training loss against steps."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from invertible_rescaling.errors import RescalingError

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17a0aa")
_POINTS = 60  # about how many means a noisy line is smoothed to


class CurveError(RescalingError, ValueError):
    """There is nothing that could be drawn."""


@dataclass
class Curves:
    """One run: points (step, value) of validation PSNR in dB and of the training loss."""

    name: str
    psnr: list[tuple[float, float]] = field(default_factory=list)
    loss: list[tuple[float, float]] = field(default_factory=list)
    bicubic: float | None = None


def read_curves(path: Path, name: str | None = None) -> Curves:
    """Read a run's ``log.jsonl``, or that in a run's folder; lines that a crash cut short are passed over.

    Raises:
        CurveError: there is no such log, or it holds neither a validation nor a loss.
    """
    log = path / "log.jsonl" if path.is_dir() else path
    curves = Curves(name or (path.name if path.is_dir() else path.resolve().parent.name))
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CurveError(f"no log can be read at {str(log)!r}: {error}; name a run's folder") from error
    for line in lines:
        try:
            entry = json.loads(line)
            _take(entry, curves)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    if not curves.psnr and not curves.loss:
        raise CurveError(f"{str(log)!r} holds neither a validation nor a loss yet")
    return curves


def _take(entry: dict[str, dict[str, float]], curves: Curves) -> None:
    step = float(entry["step"])  # type: ignore[arg-type]  # the one entry that is a number
    if "val" in entry:
        _add(curves.psnr, step, entry["val"]["psnr_rgb"])
    if "loss" in entry:
        _add(curves.loss, step, entry["loss"]["total"])
    if "bicubic" in entry:
        curves.bicubic = float(entry["bicubic"]["psnr_rgb"])


def _add(points: list[tuple[float, float]], step: float, value: float) -> None:
    """Steps that were made again replace what was logged of them and later."""
    while points and points[-1][0] >= step:
        points.pop()
    if math.isfinite(value):
        points.append((step, value))


def smoothed(points: Sequence[tuple[float, float]], groups: int = _POINTS) -> list[tuple[float, float]]:
    """Means over groups of neighbouring points, so that a noisy line can be read.

    Example:
        >>> smoothed([(1.0, 4.0), (2.0, 2.0), (3.0, 5.0), (4.0, 7.0)], groups=2)
        [(1.5, 3.0), (3.5, 6.0)]
    """
    size = max(1, len(points) // groups)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def draw_curves(runs: Sequence[Curves], path: Path) -> None:
    """Write the picture of one or several runs; needs matplotlib.

    Raises:
        CurveError: there are no runs.
        OSError: the file cannot be written.
    """
    if not runs:
        raise CurveError("there are no runs to draw; name at least one run's folder")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * (any(r.psnr for r in runs) + any(r.loss for r in runs)), 4), dpi=110)
    panels = [name for name in ("psnr", "loss") if any(getattr(run, name) for run in runs)]
    axes = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
    for run, colour in zip(runs, cycle(COLOURS)):
        if run.psnr:
            axes["psnr"].plot(*zip(*run.psnr, strict=True), ".-", color=colour, label=run.name)
        if run.loss:
            if len(runs) == 1 and len(run.loss) > _POINTS:  # the noise of several would hide the lines
                axes["loss"].plot(*zip(*run.loss, strict=True), color=colour, alpha=0.25)
            axes["loss"].plot(*zip(*smoothed(run.loss), strict=True), color=colour, label=run.name)
    if "psnr" in axes:
        axes["psnr"].set_ylabel("validation PSNR, RGB (dB)")
        for value in sorted({round(run.bicubic, 2) for run in runs if run.psnr and run.bicubic is not None}):
            axes["psnr"].axhline(value, color="grey", linestyle="--", label=f"bicubic, {value:.2f} dB")
    if "loss" in axes:
        axes["loss"].set_ylabel("training loss (weighted sum of its terms)")
        axes["loss"].set_yscale("log")
    for axis in axes.values():
        axis.set_xlabel("training step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)
