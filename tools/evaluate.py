"""Measure rescalers on benchmark folders: PSNR and SSIM, in RGB and on luma, beside bicubic.

    python tools/evaluate.py ../shared/data/benchmarks --checkpoint best.safetensors --json out.json
    python tools/evaluate.py ../shared/data/benchmarks --model iirn_x4:DEFAULT iirn_x4
    python tools/evaluate.py ../shared/data/benchmarks --paper --picture crops.png

Every folder that holds images, FOLDER itself or one below it, is one benchmark of the table. With --paper it
is Table 1 of Mo & Chen 2021: every system of theirs, what they print and what is measured here, with the
weights that ship and the checkpoints given; what has not been trained stays empty.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.foreign import foreign_rows
from evaluation.measuring import Progress, find_benchmarks, measure_benchmark
from evaluation.methods import Row, bicubic_rows, model_rows
from evaluation.paper import shipped, to_paper
from evaluation.picture import SUFFIXES, draw
from evaluation.report import Report, to_json, to_markdown
from evaluation.task import Task
from evaluation.words import one_line, write_json
from invertible_rescaling import RescalingError


def evaluate(task: Task) -> Report:
    """Measure everything the task names; what goes wrong is collected, not raised."""
    problems: list[str] = []
    benchmarks = find_benchmarks(task, problems)
    rows: list[Row] = []
    if benchmarks:
        rows = [*bicubic_rows(task), *model_rows(task, problems), *foreign_rows(task, problems)]
    count = len(rows) * sum(len(benchmark.images) for benchmark in benchmarks)
    full = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # so that a GPU gives a CPU's figures
    with full, torch.inference_mode(), Progress(count) as progress:
        for benchmark in benchmarks:
            measure_benchmark(benchmark, rows, task, problems, progress)
            if not benchmark.measured:
                problems.append(f"{benchmark.name}: no image is left to measure")
    return Report(task, rows, benchmarks, problems)


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
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME[:WEIGHTS]",
        help="registered models: NAME is untrained, NAME:DEFAULT has shipped weights",
    )
    add(
        "--spandrel",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FILE",
        help="super-resolution networks of other projects (VDSR, RCAN, ...), on bicubic LR; needs spandrel",
    )
    add("--paper", action="store_true", help="print Table 1 of Mo & Chen, with all weights that ship")
    add(
        "--picture", type=Path, metavar="FILE", help="draw crops of one image by every row, the first, a .png"
    )
    add("--picture-of", metavar="NAME", help="of the image of that name, such as baby or baby.png")
    add("--crop", type=int, nargs=3, metavar=("TOP", "LEFT", "SIDE"), help="of them (default: the middle)")
    add("--scale", type=at_least(2), default=4, metavar="N", help="(default: 4)")
    add(
        "--through",
        metavar="CODEC:QUALITY",
        help="store LR so before it is brought back: jpeg:90, jpeg444:95, webp:80, avif:90, jpeg:90+jpeg:90",
    )
    add("--latent", metavar="NAME", help="use this registered latent in place of the models' own")
    add("--device", type=usable_device, default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add("--json", metavar="FILE", help="write the figures there too; - prints them in place of the table")
    add("--tile", type=at_least(1), metavar="N", help="let rescalers work in tiles of N HR pixels")
    add("--overlap", type=at_least(0), metavar="N", help="each tile on its own, with N pixels around it")
    add("--limit", type=at_least(1), metavar="N", help="take only the first N images of each benchmark")
    options = parser.parse_args(argv)
    if options.crop is not None and (min(options.crop[:2]) < 0 or options.crop[2] < 1):
        parser.error(f"--crop needs TOP and LEFT of at least 0 and SIDE of at least 1, got {options.crop}")
    if options.picture is None and (options.crop is not None or options.picture_of is not None):
        parser.error("--crop and --picture-of belong to --picture")
    if options.picture is not None and options.picture.suffix.lower() not in SUFFIXES:
        parser.error(f"--picture {options.picture}: the file's name ends with {' or '.join(SUFFIXES)}")
    for flag, target in (("--picture", options.picture), ("--json", options.json)):
        if target not in (None, "-") and not Path(target).absolute().parent.is_dir():
            parser.error(f"{flag} {target}: there is no folder at {Path(target).absolute().parent}")
    if options.paper and options.scale != 4:
        parser.error(f"--paper is of scale 4, got --scale {options.scale}")
    if options.overlap is not None and options.tile is None:
        parser.error("--overlap belongs to --tile")
    return Task(
        folders=tuple(options.folders),
        checkpoints=tuple(options.checkpoint),
        spandrel=tuple(options.spandrel),
        models=(*options.model, *(shipped() if options.paper else ())),
        scale=options.scale,
        latent=options.latent,
        device=options.device,
        json=options.json,
        limit=options.limit,
        through=options.through,
        tile=options.tile,
        overlap=options.overlap,
        paper=options.paper,
        picture=options.picture,
        picture_of=options.picture_of,
        crop=None if options.crop is None else tuple(options.crop),
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
    """Print the table; write JSON and picture, whose places may be unwritable."""
    task = report.task
    if task.json == "-":
        print(to_json(report), end="")
    else:
        print((to_paper if task.paper else to_markdown)(report), flush=True)
        if task.json is not None:
            try:
                write_json(Path(task.json), to_json(report))
            except OSError as error:
                report.problems.append(f"cannot write --json {task.json}: {error.strerror or error}")
    if task.picture is not None:
        draw(report, task.picture)


if __name__ == "__main__":
    sys.exit(main())
