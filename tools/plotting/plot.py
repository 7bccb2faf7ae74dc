"""Line plots with Pillow alone: panels above one another over one horizontal axis."""

import importlib
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invertible_rescaling.files import write_atomically

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BELOW, _GAP = 1000, 330, 90, 30, 44, 64, 56
_INK, _GRID, _PAPER = (30, 30, 30), (228, 228, 228), (255, 255, 255)
_FINE = 2  # drawn this many times as large and shrunk, which smooths the lines


@dataclass(frozen=True)
class Line:
    """Points joined in order; without a label it is not in the legend."""

    points: Points
    colour: Colour
    label: str | None
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes; ``logarithmic`` is of the vertical one, for values above 0."""

    title: str
    lines: Sequence[Line]
    logarithmic: bool = False


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers at even distances within [low, high], at most so many of them.

    Example:
        >>> ticks(0, 50_000)
        [0, 10000, 20000, 30000, 40000, 50000]
        >>> ticks(26.8, 28.1)
        [26.8, 27, 27.2, 27.4, 27.6, 27.8, 28]
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * unit for unit in (1, 2, 5, 10, 20) if span / (power * unit) < most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [round(number * step, decimals) for number in range(first, last + 1)]
    return [int(value) if value == int(value) else value for value in values]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: as few or many for each power of ten as can be read.

    Example:
        >>> log_ticks(0.02, 0.3)
        [0.02, 0.05, 0.1, 0.2]
    """
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for units in ((1.0,), (1.0, 2.0, 5.0)):
        values = [unit * 10.0**power for power in powers for unit in units]
        values = [float(f"{v:.6g}") for v in values if low * 0.999999 <= v <= high * 1.000001]
        if len(values) >= 3:
            return values
    return ticks(low, high)


def label_of(value: float) -> str:
    """A tick's number as it is read: thousands apart, no trailing zeros.

    Example:
        >>> label_of(50_000), label_of(0.02), label_of(27.2)
        ('50,000', '0.02', '27.2')
    """
    return f"{value:,.0f}" if value == int(value) else f"{value:.6g}"


def draw(panels: Sequence[Panel], below: str, across: tuple[float, float], path: Path) -> None:
    """Write a PNG.

    Args:
        panels: from the top down.
        below: label of the horizontal axis.
        across: its range.
        path: of the file; replaced if it is there.
    """
    pillow, draw_module = importlib.import_module("PIL.Image"), importlib.import_module("PIL.ImageDraw")
    height = len(panels) * (_TOP + _HEIGHT + _GAP) - _GAP + _BELOW
    size = (_WIDTH * _FINE, height * _FINE)
    sheet = pillow.new("RGB", size, _PAPER)
    pen = _Pen(draw_module.Draw(sheet))
    across = across if across[1] > across[0] else (across[0], across[0] + 1)
    for number, panel in enumerate(panels):
        top = number * (_TOP + _HEIGHT + _GAP) + _TOP
        _Axes(pen, panel, across, top).draw()
    pen.text(((_LEFT + _WIDTH - _RIGHT) / 2, height - 26), below, "mm")
    buffer = io.BytesIO()
    sheet.resize((_WIDTH, height), pillow.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())


class _Pen:
    """Pillow's drawing in the coordinates of the finished picture."""

    def __init__(self, on: Any) -> None:
        self._on = on
        self._font = importlib.import_module("PIL.ImageFont").load_default(size=15 * _FINE)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        scaled = [(x * _FINE, y * _FINE) for x, y in points]
        self._on.line(scaled, fill=colour, width=round(width * _FINE), joint="curve")

    def dot(self, x: float, y: float, colour: Colour, radius: float) -> None:
        box = [(x - radius) * _FINE, (y - radius) * _FINE, (x + radius) * _FINE, (y + radius) * _FINE]
        self._on.ellipse(box, fill=colour)

    def box(self, corners: tuple[float, float, float, float], colour: Colour) -> None:
        self._on.rectangle([value * _FINE for value in corners], fill=colour)

    def text(self, at: tuple[float, float], text: str, anchor: str) -> None:
        self._on.text((at[0] * _FINE, at[1] * _FINE), text, fill=_INK, font=self._font, anchor=anchor)

    def width(self, text: str) -> float:
        return float(self._font.getlength(text)) / _FINE


class _Axes:
    def __init__(self, pen: _Pen, panel: Panel, across: tuple[float, float], top: int) -> None:
        self.pen = pen
        self.panel = panel
        self.across = across
        self.top = top
        values = [y for line in panel.lines for _, y in line.points]
        self.logarithmic = panel.logarithmic and min(values) > 0
        low, high = self._scale(min(values)), self._scale(max(values))
        margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        self.low, self.high = low - margin, high + margin

    def draw(self) -> None:
        pen, bottom, right = self.pen, self.top + _HEIGHT, _WIDTH - _RIGHT
        for value in self._ticks():
            y = self._y(value)
            pen.line([(_LEFT, y), (right, y)], _GRID, 1)
            pen.text((_LEFT - 10, y), label_of(value), "rm")
        for value in ticks(*self.across):
            x = self._x(value)
            pen.line([(x, self.top), (x, bottom)], _GRID, 1)
            pen.text((x, bottom + 8), label_of(value), "ma")
        pen.line([(_LEFT, self.top), (_LEFT, bottom), (right, bottom)], _INK, 1)
        scale = ", logarithmic" if self.logarithmic else ""
        pen.text((_LEFT, self.top - 12), self.panel.title + scale, "ls")
        for line in self.panel.lines:
            self._line(line)
        self._legend()

    def _line(self, line: Line) -> None:
        points = [(self._x(x), self._y(y)) for x, y in line.points]
        if line.dashed:
            (start, y), (end, _) = points[0], points[-1]
            at = start
            while at < end:
                self.pen.line([(at, y), (min(at + 9, end), y)], line.colour, 1.5)
                at += 15
            return
        if len(points) > 1:
            self.pen.line(points, line.colour, 2 if line.label else 1)
        if len(points) <= 30 and line.label:
            for x, y in points:
                self.pen.dot(x, y, line.colour, 3.5)

    def _along(self, line: Line, every: float = 8.0) -> list[tuple[float, float]]:
        """Places in the picture that a line passes, close to one another."""
        points = [(self._x(x), self._y(y)) for x, y in line.points]
        places = list(points)
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            parts = math.ceil(math.hypot(x1 - x0, y1 - y0) / every)
            places += [(x0 + (x1 - x0) * n / parts, y0 + (y1 - y0) * n / parts) for n in range(1, parts)]
        return places

    def _legend(self) -> None:
        """Where the lines leave most room for it: it is opaque."""
        lines = [line for line in self.panel.lines if line.label]
        wide = 56 + max(self.pen.width(line.label or "") for line in lines)
        tall = 24 * len(lines) + 10
        lefts = (_WIDTH - _RIGHT - wide - 8, _LEFT + 12.0)
        free = _HEIGHT - tall - 16
        tops = [self.top + 8 + free * part for part in (0, 1, 0.25, 0.5, 0.75)]
        passed = [place for line in self.panel.lines for place in self._along(line)]

        def hidden(corner: tuple[float, float]) -> int:
            x0, y0 = corner
            return sum(x0 - 6 <= x <= x0 + wide + 6 and y0 - 6 <= y <= y0 + tall + 6 for x, y in passed)

        left, top = min(((x, y) for x in lefts for y in tops), key=hidden)
        self.pen.box((left, top, left + wide, top + tall), _PAPER)
        for number, line in enumerate(lines):
            y = top + 17 + 24 * number
            pieces = ((8, 16), (22, 30), (36, 40)) if line.dashed else ((8, 40),)
            for start, end in pieces:
                self.pen.line([(left + start, y), (left + end, y)], line.colour, 2.5)
            self.pen.text((left + 48, y), line.label or "", "lm")

    def _ticks(self) -> list[float]:
        if self.logarithmic:
            return log_ticks(10**self.low, 10**self.high)
        return ticks(self.low, self.high)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def _x(self, value: float) -> float:
        low, high = self.across
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _RIGHT - _LEFT)

    def _y(self, value: float) -> float:
        return self.top + _HEIGHT - (self._scale(value) - self.low) / (self.high - self.low) * _HEIGHT
