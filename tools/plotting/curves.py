"""What the logs of runs say, and a picture of it: validation PSNR and training loss against steps."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from invertible_rescaling.errors import RescalingError
from plotting.plot import Line, Panel, draw

COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 160, 170))
_GREY = (120, 120, 120)
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
    """Write the picture of one or several runs.

    Raises:
        CurveError: there are no runs.
        OSError: the file cannot be written.
    """
    if not runs:
        raise CurveError("there are no runs to draw; name at least one run's folder")
    coloured = [(run, COLOURS[number % len(COLOURS)]) for number, run in enumerate(runs)]
    psnr = [Line(run.psnr, colour, run.name) for run, colour in coloured]
    psnr += _references(runs)
    loss = []
    if len(runs) == 1 and len(runs[0].loss) > _POINTS:  # the noise of several would hide the lines
        loss.append(Line(runs[0].loss, _pale(COLOURS[0]), None))
    loss += [Line(smoothed(run.loss), colour, run.name) for run, colour in coloured]
    last = max(step for run in runs for step, _ in [*run.psnr, *run.loss])
    panels = [
        Panel("validation PSNR, RGB (dB)", [line for line in psnr if line.points]),
        Panel(
            "training loss (weighted sum of its terms)",
            [line for line in loss if line.points],
            logarithmic=True,
        ),
    ]
    draw([panel for panel in panels if panel.lines], "training step", (0.0, last), path)


def _references(runs: Sequence[Curves]) -> Iterable[Line]:
    """Bicubic once for all runs that were validated on the same images."""
    ends = [step for run in runs for step, _ in run.psnr]
    for value in sorted({round(run.bicubic, 2) for run in runs if run.bicubic is not None}):
        if ends:
            yield Line([(0.0, value), (max(ends), value)], _GREY, f"bicubic, {value:.2f} dB", dashed=True)


def _pale(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (255 - (255 - part) // 4 for part in colour)
    return red, green, blue
