"""Measure rescalers on benchmark folders: PSNR and SSIM, in RGB and on luma, beside bicubic.

    python examples/evaluate.py ../shared/data/benchmarks --checkpoint best.safetensors --json out.json

Every folder that holds images, FOLDER itself or one below it, is one benchmark of the table.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from invertible_rescaling import (
    InvertibleRescaler,
    RescalingError,
    create_model,
    load_checkpoint,
    psnr,
    ssim,
)
from invertible_rescaling.comparison.super_resolver import SuperResolver
from invertible_rescaling.errors import ConfigError, ImageError
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.images import find_images, from_uint8, read_image

Rescaler = InvertibleRescaler | SuperResolver
SSIM_WINDOW = 11
SEED = 0


@dataclass(frozen=True)
class Task:
    """What is measured: the command line, understood."""

    folders: tuple[Path, ...]
    checkpoints: tuple[Path, ...]
    models: tuple[str, ...]
    scale: int
    latent: str | None
    device: torch.device
    json: str | None
    limit: int | None


class Method(Protocol):
    """Shrinks HR ``(1, 3, H, W)`` to an 8-bit LR and restores it: ``method(hr) -> (lr, sr)``."""

    def __call__(self, hr: Tensor, /) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    kind: str
    method: Method
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Means over a benchmark's images; PSNR in dB."""

    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float
    ssim_y: float
    psnr_lr: float

    @classmethod
    def mean(cls, figures: Sequence["Figures"]) -> "Figures":
        """Average, figure by figure."""
        rows = [tuple(vars(f).values()) for f in figures]
        return cls(*(sum(column) / len(column) for column in zip(*rows, strict=True)))


@dataclass
class Benchmark:
    """A folder of images, and what came of measuring on it."""

    name: str
    images: list[Path]
    found: int
    measured: int = 0
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    figures: dict[str, Figures] = field(default_factory=dict)


@dataclass
class Report:
    """All that the program has to say at the end."""

    task: Task
    rows: list[Row]
    benchmarks: list[Benchmark]
    problems: list[str]


# ---- the rows


def make_bicubic(scale: int, *, antialias: bool) -> Method:
    """Bicubic down, stored at 8 bits, and up; ``antialias`` chooses the kernel of the way up."""

    def method(hr: Tensor) -> tuple[Tensor, Tensor]:
        lr = bicubic_lr(hr, scale)
        height, width = hr.shape[-2:]
        return lr, bicubic_resize(lr, (height, width), antialias=antialias)

    return method


def bicubic_lr(hr: Tensor, scale: int) -> Tensor:
    """The 8-bit bicubic LR that every row's LR is compared with."""
    return quantize(bicubic_resize(hr, (hr.shape[-2] // scale, hr.shape[-1] // scale), antialias=True))


def with_model(model: Rescaler, hr: Tensor) -> tuple[Tensor, Tensor]:
    """Shrink and restore with a rescaler; a random latent is drawn from the same seed for every image."""
    torch.manual_seed(SEED)
    height, width = hr.shape[-2:]
    lr = model.downscale(hr.contiguous(memory_format=torch.channels_last))
    return lr, model.upscale(lr, size=(height, width))


def bicubic_rows(scale: int) -> list[Row]:
    """Bicubic by its two usual kernels."""
    return [
        Row("bicubic (MATLAB's kernel, a = -0.5)", "bicubic", make_bicubic(scale, antialias=True)),
        Row("bicubic (enlarged with a = -0.75)", "bicubic", make_bicubic(scale, antialias=False)),
    ]


def model_rows(task: Task, problems: list[str]) -> list[Row]:
    """The rows of ``--model`` and ``--checkpoint``; what cannot be built is added to ``problems``."""
    rows = []
    for name in dict.fromkeys(task.models):
        try:
            model = replace_latent(
                check_model(create_model(name), task.scale, f"--model {name}"), task.latent
            )
            rows.append(model_row(f"{name}, untrained", "model", model, task, {"model": name}))
        except (RescalingError, OSError) as error:
            problems.append(one_line(error))
    checkpoints = list(dict.fromkeys(task.checkpoints))
    stems = tell_apart([path.with_suffix("") for path in checkpoints])
    for path, name in zip(checkpoints, stems, strict=True):
        try:
            found = load_checkpoint(path, kind=nn.Module)
            model = replace_latent(check_model(found, task.scale, f"--checkpoint {path}"), task.latent)
            rows.append(model_row(name, "checkpoint", model, task, {"file": str(path)}))
        except (RescalingError, OSError) as error:
            problems.append(one_line(error))
    return rows


def model_row(name: str, kind: str, model: Rescaler, task: Task, facts: dict[str, Any]) -> Row:
    """Make a model ready to be measured, in float32 on the device."""
    config = model.config
    model = model.float().eval().to(task.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    if isinstance(model, InvertibleRescaler):
        structure = f"x{model.scale} {describe(config['subnet'])} {'+'.join(map(str, model.blocks))}"
        label = f"{name} ({structure}, {describe(config['latent'])} latent)"
    else:
        label = f"{name} (x{model.scale} {model.architecture}, on bicubic LR)"
    return Row(label, kind, partial(with_model, model), facts | {"config": config})


def check_model(model: Any, scale: int, what: str) -> Rescaler:
    """Refuse what cannot fill a row of this table."""
    if not isinstance(model, Rescaler):
        raise ConfigError(
            f"{what} is a {type(model).__name__}, which does not shrink images; name a rescaler"
        )
    if model.scale != scale:
        raise ConfigError(f"{what} is a model of scale {model.scale}, not {scale}: use --scale {model.scale}")
    if model.channels != 3:
        raise ConfigError(f"{what} takes {model.channels} channels; images are read as RGB, which has 3")
    return model


def replace_latent(model: Rescaler, latent: str | None) -> Rescaler:
    """The same bijection with another latent, where one is asked for; what has none stays as it is."""
    if latent is None or isinstance(model, SuperResolver):
        return model
    other = InvertibleRescaler(**(model.config | {"latent": latent}))
    other.flow = model.flow
    return other


def describe(spec: dict[str, Any]) -> str:
    """``{"name": "crdb", "growth": 16}`` -> ``crdb growth=16``; what the name implies is left out."""
    implied = {"wavelet": "haar", "correction": "ratio"}
    options = {key: value for key, value in spec.items() if key != "name" and implied.get(key) != value}
    return " ".join([spec["name"], *(f"{key}={value}" for key, value in options.items())])


def tell_apart(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many folders before it as it takes to tell them apart."""
    parts = [path.absolute().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


# ---- the benchmarks


def find_benchmarks(task: Task, problems: list[str]) -> list[Benchmark]:
    """Every folder that holds images directly, in or below the folders given."""
    groups: dict[Path, list[Path]] = {}
    for folder in task.folders:
        try:
            for image in find_images(folder):
                group = groups.setdefault(image.parent.resolve(), [])
                if image.name not in {other.name for other in group}:
                    group.append(image)
        except (RescalingError, OSError) as error:
            problems.append(one_line(error))
    names = tell_apart(list(groups))
    return [
        Benchmark(name, images[: task.limit], len(images))
        for name, images in zip(names, groups.values(), strict=True)
    ]


def read_hr(path: Path, scale: int) -> Tensor:
    """Read an image, cropped at the bottom and right to a multiple of the scale.

    Raises:
        ImageError: it cannot be read, or is too small for the border and the window of SSIM.
    """
    image = read_image(path)
    height, width = (side - side % scale for side in image.shape[1:])
    if min(height, width) - 2 * scale < SSIM_WINDOW:
        least = 2 * scale + SSIM_WINDOW
        least += -least % scale
        raise ImageError(
            f"{path} is too small, {image.shape[2]}x{image.shape[1]}: at scale {scale} the border and the "
            f"window of SSIM take at least {least}x{least}"
        )
    return from_uint8(image[:, :height, :width]).unsqueeze(0)


# ---- measuring


def measure(hr: Tensor, method: Method, scale: int) -> Figures:
    """All figures of one method on one image."""
    lr, sr = method(hr)
    sr = sr.clamp(0, 1)
    return Figures(
        psnr_rgb=psnr(sr, hr, space="rgb", border=scale).item(),
        ssim_rgb=ssim(sr, hr, space="rgb", border=scale).item(),
        psnr_y=psnr(sr, hr, space="y", border=scale).item(),
        ssim_y=ssim(sr, hr, space="y", border=scale).item(),
        psnr_lr=psnr(lr, bicubic_lr(hr, scale), space="rgb").item(),
    )


def measure_benchmark(
    benchmark: Benchmark, rows: Sequence[Row], task: Task, problems: list[str], progress: "Progress"
) -> None:
    """Fill in a benchmark's figures; a row that fails on an image has none, a bad image counts for no row."""
    figures: dict[str, list[Figures]] = {row.name: [] for row in rows}
    for path in benchmark.images:
        try:
            hr = read_hr(path, task.scale).to(task.device)
        except ImageError as error:
            benchmark.skipped.append((path, one_line(error)))
            problems.append(f"{benchmark.name}: skipped: {one_line(error)}")
            progress.step(len(figures))
            continue
        benchmark.measured += 1
        for row in rows:
            if row.name not in figures:
                continue
            try:
                figures[row.name].append(measure(hr, row.method, task.scale))
            except (RescalingError, OSError, torch.OutOfMemoryError) as error:
                problems.append(f"{row.name} failed on {path}: {one_line(error)}")
                del figures[row.name]
            progress.step()
    benchmark.figures = {name: Figures.mean(values) for name, values in figures.items() if values}


class Progress:
    """A bar on stderr if that is a terminal and tqdm is there; nothing otherwise."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit="image", file=sys.stderr, leave=False)

    def step(self, count: int = 1) -> None:
        """So many images more are done."""
        if self._bar is not None:
            self._bar.update(count)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def evaluate(task: Task) -> Report:
    """Measure everything the task names; what goes wrong is collected, not raised."""
    problems: list[str] = []
    benchmarks = find_benchmarks(task, problems)
    rows = [*bicubic_rows(task.scale), *model_rows(task, problems)] if benchmarks else []
    with torch.inference_mode(), Progress(len(rows) * sum(len(b.images) for b in benchmarks)) as progress:
        for benchmark in benchmarks:
            measure_benchmark(benchmark, rows, task, problems, progress)
            if not benchmark.measured:
                problems.append(f"{benchmark.name}: no image is left to measure")
    return Report(task, rows, benchmarks, problems)


# ---- the output


def convention(task: Task) -> list[str]:
    """What the figures mean, in sentences."""
    scale = task.scale
    return [
        f"Scale {scale}. All images are read as RGB. HR is cropped at the bottom and right to a multiple "
        f"of {scale} for every method.",
        "LR is stored at 8 bits; SR is clamped to [0, 1] and not rounded.",
        f"A border of {scale} pixels is cropped from SR and HR; figures are means over the images.",
        "PSNR in dB. RGB: over all three channels, SSIM averaged over them. Y: luma of BT.601 (16..235).",
        f"SSIM: {SSIM_WINDOW}x{SSIM_WINDOW} Gaussian window, sigma 1.5, where it fits wholly into the image.",
        "LR: PSNR of the 8-bit LR against the 8-bit bicubic LR (a = -0.5, antialiased), RGB, uncropped.",
        f"Random latents are drawn with seed {SEED} for each image.",
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
            cells[-1] += format_figures(benchmark.figures.get(row.name), row.kind)
    lines += align(cells)
    return "\n".join([*lines, "", *map(describe_benchmark, report.benchmarks)])


def format_figures(figures: Figures | None, kind: str) -> list[str]:
    """Three cells; bicubic's LR is the reference itself."""
    if figures is None:
        return ["-", "-", "-"]
    return [
        f"{figures.psnr_rgb:.2f}/{figures.ssim_rgb:.4f}",
        f"{figures.psnr_y:.2f}/{figures.ssim_y:.4f}",
        "same" if kind == "bicubic" else f"{figures.psnr_lr:.2f}",
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
        "device": str(task.device),
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


def write_json(path: Path, text: str) -> None:
    """Write beside the final name and rename, so that an older file is kept if this fails."""
    if path.exists() and not path.is_file():  # a pipe or device
        path.write_text(text, encoding="utf-8")
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


# ---- the command line


def parse(argv: Sequence[str] | None) -> Task:
    """Read the command line; argparse itself ends with code 2 on a mistake in it."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="PSNR and SSIM of image rescalers and of bicubic on folders of images.",
    )
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="a benchmark, or a folder of benchmarks")
    add(
        "--checkpoint",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FILE",
        help="trained models",
    )
    add(
        "--model", nargs="+", action="extend", default=[], metavar="NAME", help="registered models, untrained"
    )
    add("--scale", type=at_least(2), default=4, metavar="N", help="(default: 4)")
    add("--latent", metavar="NAME", help="use this registered latent in place of the models' own")
    add("--device", type=usable_device, default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add("--json", metavar="FILE", help="write the figures there too; - prints them in place of the table")
    add("--limit", type=at_least(1), metavar="N", help="take only the first N images of each benchmark")
    options = parser.parse_args(argv)
    return Task(
        folders=tuple(options.folders),
        checkpoints=tuple(options.checkpoint),
        models=tuple(options.model),
        scale=options.scale,
        latent=options.latent,
        device=options.device,
        json=options.json,
        limit=options.limit,
    )


def at_least(least: int) -> Any:
    """A parser of integers of at least so much."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return integer


def usable_device(text: str) -> torch.device:
    """A device that holds a tensor when asked to."""
    try:
        device = torch.device(text)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).strip().splitlines()[0]
        raise argparse.ArgumentTypeError(f"cannot use {text!r}: {reason}") from error
    return device


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, and return 0, or 2 if anything went wrong on the way."""
    task = parse(argv)
    try:
        report = evaluate(task)
        if report.rows:
            output(report)
        problems = report.problems
    except (RescalingError, OSError) as error:
        problems = [one_line(error)]
    except KeyboardInterrupt:
        print("evaluate.py: interrupted", file=sys.stderr)
        return 130
    for problem in problems:
        print(f"evaluate.py: {problem}", file=sys.stderr)
    return 2 if problems else 0


def output(report: Report) -> None:
    """Print the table; write the JSON, whose target may be unwritable."""
    if report.task.json == "-":
        print(to_json(report), end="")
        return
    print(to_markdown(report), flush=True)
    if report.task.json is not None:
        try:
            write_json(Path(report.task.json), to_json(report))
        except OSError as error:
            report.problems.append(f"cannot write --json {report.task.json}: {error.strerror or error}")


if __name__ == "__main__":
    sys.exit(main())
