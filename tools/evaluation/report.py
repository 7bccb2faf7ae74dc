"""What came of measuring, as a table and as data."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from evaluation.measuring import Benchmark, Figures
from evaluation.methods import SEED, Row
from evaluation.task import Task
from invertible_rescaling.metrics import SSIM_WINDOW
from provenance import commit, machine, stamp


@dataclass
class Report:
    """All that the program has to say at the end."""

    task: Task
    rows: list[Row]
    benchmarks: list[Benchmark]
    problems: list[str]


def convention(task: Task) -> list[str]:
    """What the figures mean, in sentences."""
    scale = task.scale
    around = "" if task.overlap is None else f", each on its own with {task.overlap} around it"
    return [
        f"Scale {scale}. All images are read as RGB. HR is cropped at the bottom and right to a multiple "
        f"of {scale} for every method.",
        "LR is stored at 8 bits; SR is clamped to [0, 1] and not rounded.",
        f"A border of {scale} pixels is cropped from SR and HR; figures are means over the images.",
        "PSNR in dB. RGB: over all three channels, SSIM averaged over them. Y: luma of BT.601 (16..235).",
        f"SSIM: {SSIM_WINDOW}x{SSIM_WINDOW} Gaussian window, sigma 1.5, where it fits wholly into the image.",
        "LR: PSNR of the 8-bit LR against the 8-bit bicubic LR (a = -0.5, antialiased), RGB, uncropped.",
        f"Random latents are drawn with seed {SEED} for each image.",
        *([] if task.through is None else [f"LR goes through {task.through} before it is brought back."]),
        *([] if task.tile is None else [f"Rescalers work in tiles of {task.tile} HR pixels{around}."]),
    ]


def to_markdown(report: Report) -> str:
    """The convention, the aligned table and a line for each benchmark."""
    lines = [*convention(report.task), ""]
    names = [benchmark.name for benchmark in report.benchmarks]
    columns = ("RGB PSNR/SSIM", "Y PSNR/SSIM", "LR PSNR")
    cells = [["method", *(f"{name} {column}" for name in names for column in columns)]]
    for row in report.rows:
        cells.append([row.name])
        for benchmark in report.benchmarks:
            cells[-1] += format_figures(benchmark.figures.get(row.name))
    lines += align(cells)
    measured = [*map(describe_benchmark, report.benchmarks), stamp(str(report.task.device))]
    return "\n".join([*lines, "", *measured])


def format_figures(figures: Figures | None) -> list[str]:
    """Three cells; an LR that is bicubic's to the last bit has no PSNR."""
    if figures is None:
        return ["-", "-", "-"]
    return [
        f"{figures.psnr_rgb:.2f}/{figures.ssim_rgb:.4f}",
        f"{figures.psnr_y:.2f}/{figures.ssim_y:.4f}",
        "same" if math.isinf(figures.psnr_lr) else f"{figures.psnr_lr:.2f}",
    ]


def align(cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up as plain text; the first row is the header."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]

    def line(row: Iterable[str]) -> Iterator[str]:
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            yield cell.rjust(width) if index else cell.ljust(width)

    header, *body = cells
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [f"| {' | '.join(line(row))} |" for row in (header, rule, *body)]


def describe_benchmark(benchmark: Benchmark) -> str:
    """How many images the means are over, and which were left out."""
    text = f"{benchmark.name}: {benchmark.measured} of {benchmark.found} images measured"
    if len(benchmark.images) < benchmark.found:
        text += f", the first {len(benchmark.images)} taken (--limit)"
    if benchmark.skipped:
        reasons = "; ".join(reason for _, reason in benchmark.skipped)
        text += f", {len(benchmark.skipped)} skipped: {reasons}"
    return text


def to_json(report: Report) -> str:
    """The same as data; a figure that is infinite or undefined is null, as JSON has neither."""
    task = report.task
    data = {
        "convention": [*convention(task), "null: infinite or undefined."],
        "scale": task.scale,
        "border": task.scale,
        "latent": task.latent,
        "through": task.through,
        "tile": task.tile,
        "overlap": task.overlap,
        "device": str(task.device),
        "machine": machine(str(task.device)),
        "commit": commit(),
        "limit": task.limit,
        "benchmarks": [
            {
                "name": benchmark.name,
                "found": benchmark.found,
                "measured": benchmark.measured,
                "skipped": [{"file": str(path), "reason": why} for path, why in benchmark.skipped],
            }
            for benchmark in report.benchmarks
        ],
        "rows": [
            {
                "name": row.name,
                "kind": row.kind,
                **row.facts,
                "budget": row.origin.budget or None,
                "figures": {
                    benchmark.name: finite(benchmark.figures.get(row.name)) for benchmark in report.benchmarks
                },
            }
            for row in report.rows
        ],
        "problems": report.problems,
    }
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def finite(figures: Figures | None) -> dict[str, float | None] | None:
    """Figures as JSON can hold them."""
    if figures is None:
        return None
    return {key: value if math.isfinite(value) else None for key, value in vars(figures).items()}
