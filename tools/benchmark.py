"""Speed and memory of the library on this machine, every comparison within one run.

    python tools/benchmark.py inference training import --threads 2
    python tools/benchmark.py inference --models irn_x4 iirn_x4 --official Invertible-Image-Rescaling
    python tools/benchmark.py profile batches --models iirn_x4 linear_x4
    python tools/benchmark.py optimizers --models iirn_x2 --batch 4 --patch 32
    python tools/benchmark.py memory --depths 2 8 32
    python tools/benchmark.py tiles --side 8192 --tile 1024
    python tools/benchmark.py seams
    python tools/benchmark.py speed --models linear_x4 small_x4 --engines torch onnxruntime --draw speed.png
    python tools/benchmark.py inference --device cuda --precision bf16 --compile --size 2160 3840

Times are medians of rounds in which the compared calls take turns. Rates are over that of a large matrix
product, so that machines can be compared. --official names a clone of IRN's authors' repository
(github.com/pkuxmq/Invertible-Image-Rescaling), whose network takes turns with the others. A measurement
that fails ends the run with 2, and one line says why; one that runs out of memory leaves its cell empty.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from benchmarking.batches import batches
from benchmarking.children import OUT_OF_MEMORY, is_out_of_memory
from benchmarking.failure import MeasurementError
from benchmarking.inference import inference
from benchmarking.official import OfficialRescaler
from benchmarking.options import Options
from benchmarking.profile import profile
from benchmarking.seams import seams
from benchmarking.speed import draw_speed, speed
from benchmarking.training import MODES, memory, optimizers, peak, training
from benchmarking.whole import TILED, import_time, tiled, tiles
from invertible_rescaling import RescalingError, create_model, linear_x2
from invertible_rescaling._process import cores_here
from invertible_rescaling.engines import create_engine, list_engines
from invertible_rescaling.errors import first_line
from provenance import commit, machine, stamp

PARTS: dict[str, Callable[[Options], list[dict[str, Any]]]] = {
    "inference": inference,
    "profile": profile,
    "batches": batches,
    "training": training,
    "optimizers": optimizers,
    "memory": memory,
    "tiles": tiles,
    "seams": seams,
    "speed": speed,
    "import": import_time,
}


def main(argv: list[str] | None = None) -> int:
    """Run the parts asked for, print a Markdown table of each, and write all as JSON if asked."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads or cores_here())
    if arguments.models is None:
        arguments.models = ["iirn_x4", "small_x4" if "speed" in arguments.parts else "irn_x4"]
    if arguments.child:
        return _child(arguments.child, options_of(arguments))
    try:
        for name in arguments.models:
            create_model(name, blocks=1) if "irn" in name else create_model(name)
            if "speed" in arguments.parts:
                create_model(name, weights="DEFAULT")
        if arguments.device.startswith("cuda") and not torch.cuda.is_available():
            parser.error("there is no CUDA device here; leave --device out to measure on the CPU")
        if "cudagraphs" in arguments.engines and arguments.device == "cpu":
            parser.error("--engines cudagraphs needs --device cuda; on a CPU it is PyTorch as it is")
        for name in arguments.engines:
            create_engine(name, linear_x2().to(arguments.device))
        if arguments.official:
            OfficialRescaler(arguments.official, create_model("irn_x4", blocks=1))
        for path in filter(None, (arguments.json, arguments.draw)):
            path.touch()
    except (RescalingError, MeasurementError, OSError) as error:
        parser.error(str(error))
    options = options_of(arguments)
    results: dict[str, Any] = {"machine": machine(options.device), "commit": commit()}
    results["options"] = asdict(options)
    where = stamp(options.device)
    for part in arguments.parts or ["inference", "training", "import"]:
        try:
            results[part] = PARTS[part](options)
        except (MeasurementError, RescalingError, RuntimeError, MemoryError, OSError) as error:
            print(f"benchmark.py: {part} could not be measured: {first_line(error)}", file=sys.stderr)
            return 2
        print(f"{part}\n\n{table(results[part])}\n\n{where}\n", flush=True)
        if part == "speed" and arguments.draw:
            draw_speed(results[part], arguments.draw)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1, default=str) + "\n")
    return 0


def options_of(arguments: argparse.Namespace) -> Options:
    """What every part is told, out of the command line."""
    given: dict[str, Any] = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    as_tuples: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return Options(**as_tuples)


def _child(name: str, options: Options) -> int:
    """One measurement of many, for the process that started this one."""
    try:
        found = peak(name, options) if name in MODES else tiled(name, options)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return OUT_OF_MEMORY
        raise
    print(json.dumps(found))
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown; columns in the order they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = (row.get(name) for name in columns)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 100
        else str(round(value) if isinstance(value, float) else value)
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", choices=[*PARTS, []], help=", ".join(PARTS))
    add(
        "--models",
        nargs="+",
        help="the first one is trained and tiled (default: iirn_x4, and irn_x4 or, for speed, small_x4)",
    )
    add("--size", type=_count, nargs=2, default=(512, 512), metavar=("H", "W"), help="of inference's image")
    add("--repeats", type=_count, default=5)
    add("--threads", type=_count, default=None, help="of the CPU; all it may use by default")
    add("--device", default="cpu")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the sub-networks")
    add("--engines", nargs="+", choices=list_engines(), default=["torch"], help="of inference")
    add("--official", type=Path, metavar="DIR", help="the original authors' repository, for inference")
    add("--compile", action="store_true", help="torch.compile, for inference")
    add("--batch", type=_count, default=16, help="of training")
    add("--patch", type=_count, default=144, help="of training")
    add("--blocks", type=_count, default=2, help="couplings a stage, of training and tiles")
    add("--depths", type=_count, nargs="+", default=(2, 8, 32), help="couplings a stage, of memory")
    add("--modes", nargs="+", choices=MODES, default=MODES, help="of a training step, for memory")
    add("--side", type=_count, default=8192, help="of the image in tiles")
    add("--tile", type=_count, default=1024, help="HR pixels")
    add("--draw", type=Path, metavar="FILE", help="the picture of speed")
    add("--json", type=Path, help="write all figures there")
    add("--child", choices=(*MODES, *TILED), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
