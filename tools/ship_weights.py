r"""Make a trained checkpoint part of the package: measure it, store it small, and write down what it is.

    python tools/ship_weights.py runs/x4/best.safetensors --model iirn_x4 --version 1 \
        --benchmarks ../shared/data/benchmarks --licence Apache-2.0 --device-used "NVIDIA H200" --hours 2.5 \
        --data "CID22 training split" "CC BY-SA 4.0" 207 --data "CLIC 2025 validation split" "Unsplash" 26

Writes ``MODEL_vN.safetensors`` and ``MODEL_vN.json`` to ``invertible_rescaling/weights/files``, which is all
that ``MODEL(weights="VN")`` needs; the highest N is ``"DEFAULT"``. ``--jpeg Q`` in place of ``--version``
makes them ``"JPEGQ"``, for an LR stored as JPEG of that quality at 4:2:0, and measures them through it as
well. Weights are stored in float16 if that costs less than 0.01 dB on every benchmark, otherwise in float32.
The figures are those of the stored file.
"""

import argparse
import hashlib
import json
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from complexity import count
from evaluate import evaluate, usable_device
from evaluation.report import Report, finite, to_markdown
from evaluation.task import Task
from invertible_rescaling import (
    RescalingError,
    create_model,
    load_checkpoint,
    save_checkpoint,
)
from invertible_rescaling.errors import CheckpointError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.models import AnyModel
from invertible_rescaling.weights import read_metadata
from invertible_rescaling.weights.enums import PRETRAINED, Weights, weights_of

TOLERATED_DB = 0.01
LARGEST_MB = 20.0
EARLIER = ("STEPS", "BATCH", "PATCH", "OPTIMIZER", "HOURS", "DEVICE")
HR_SIZE = (40, 40)  # what the papers count multiply-adds on
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class ShippingError(RescalingError):
    """A checkpoint cannot be shipped as it was asked for."""


def ship(options: argparse.Namespace) -> Weights:
    """Measure, store and describe the checkpoint that the options name."""
    member = {"version": options.version} if options.jpeg is None else {"member": f"JPEG{options.jpeg}"}
    stem = f"{options.model}_" + (f"v{options.version}" if options.jpeg is None else f"jpeg{options.jpeg}")
    target, record = (options.out / f"{stem}.{suffix}" for suffix in ("safetensors", "json"))
    if record.exists() and not options.replace:
        raise ShippingError(
            f"{record} is there: weights once published stay as they are; take the next --version, or "
            "--replace it as long as nobody has it"
        )
    model: AnyModel = load_checkpoint(options.checkpoint, kind=nn.Module)  # type: ignore[assignment]  # no other
    check_structure(model, options)
    check_training(told(options.checkpoint), options)
    facts = describe(options)
    with tempfile.TemporaryDirectory() as folder:
        files = store(model, Path(folder), {"model": options.model, **member, **facts})
        check_size(min(path.stat().st_size for path in files.values()), target)
        report = measure(list(files.values()), model.scale, options)
        dtype = choose(report, list(files))
        through = measure_through(files[dtype], model.scale, options) if options.jpeg else None
        if through is not None:
            through["lowest_quality"] = lowest_quality(facts["recipe"], options.jpeg)
        content = files[dtype].read_bytes()
    cost = count(model, HR_SIZE)
    weights = Weights(
        file=target.name,
        sha256=hashlib.sha256(content).hexdigest(),
        model=options.model,
        config=model.config,
        dtype=dtype,
        parameters=cost.parameters,
        multiply_adds={"hr_size": list(HR_SIZE), "downscale": cost.downscale, "upscale": cost.upscale},
        metrics=metrics(report, dtype),
        through=through,
        **facts,
    )
    write(target, record, content, weights)
    return weights


def check_structure(model: AnyModel, options: argparse.Namespace) -> None:
    """Refuse another network than the one whose name the weights are to carry."""
    weights_of(options.model)  # names the close ones if there is none
    named = create_model(options.model).config
    theirs = model.config
    if theirs.get("architecture") != named.get("architecture"):
        kinds = [config.get("architecture", "a rescaler") for config in (theirs, named)]
        raise ShippingError(f"{options.checkpoint} holds {kinds[0]}; {options.model} is {kinds[1]}")
    if theirs["scale"] != named["scale"]:
        raise ShippingError(
            f"{options.checkpoint} is of scale {theirs['scale']}, {options.model} of scale {named['scale']}"
        )
    keys = [key for key in named | theirs if key != "latent"]
    differing = [key for key in keys if theirs.get(key) != named.get(key)]
    if differing and not options.accept_structure:
        listed = ", ".join(f"{key}: file {theirs.get(key)!r}, model {named.get(key)!r}" for key in differing)
        raise ShippingError(
            f"{options.checkpoint} is not {options.model} as its factory makes it ({listed}); give that "
            f"network a factory of its own, or --accept-structure to let {options.model}(weights=...) be it"
        )


def told(checkpoint: Path) -> dict[str, Any]:
    """The options that the training program left in a checkpoint; none, if another program made it."""
    options = read_metadata(checkpoint)["metadata"].get("options")
    return options if isinstance(options, dict) else {}


def check_training(trained: dict[str, Any], options: argparse.Namespace) -> None:
    """Refuse weights that were trained as another model, or by another loss, than their name says."""
    model, gan = trained.get("model", options.model), trained.get("gan")
    if model != options.model and {model, options.model} != {"srresnet_x4", "srgan_x4"}:
        raise ShippingError(f"{options.checkpoint} was trained as {model}, not as {options.model}")
    if options.model == "srgan_x4" and trained and gan is None:
        raise ShippingError(f"{options.checkpoint} was trained without --gan: that is srresnet_x4")
    if options.model == "srresnet_x4" and gan is not None:
        raise ShippingError(f"{options.checkpoint} was trained with --gan {gan}: that is srgan_x4")


def check_size(size: int, target: Path) -> None:
    """Keep the package small; elsewhere any size will do.

    Raises:
        ShippingError: the file would go into the package, and is too large for it.
    """
    if target.parent.resolve() == PRETRAINED.resolve() and size > LARGEST_MB * 1e6:
        raise ShippingError(
            f"{target.name} would take {size / 1e6:.1f} MB; {LARGEST_MB:g} MB are allowed in the package: "
            "keep it beside it with --out DIR, for weights=PATH"
        )


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Licence, data and recipe, from the command line and from what the training program left in the file."""
    left = read_metadata(options.checkpoint)["metadata"]
    trained = told(options.checkpoint)
    steps = left.get("step") if options.steps is None else options.steps
    if not isinstance(steps, int):
        raise ShippingError(f"{options.checkpoint} does not tell its steps of training; give --steps")
    run = {"steps": steps, **{key: trained.get(key) for key in ("batch_size", "patch", "optimizer")}}
    run |= {"hours": options.hours, "device": options.device_used}
    if trained.get("start") == "linear":
        run["linear_start"] = trained.get("start_steps")
    recipe: dict[str, Any] = {"runs": [*runs_before(options), run]}
    elsewhere = {"model", "blocks", "subnet", "latent", "steps"}
    recipe |= {key: value for key, value in trained.items() if key not in elsewhere}
    begun = "weights" if recipe.get("start", "none") in ("none", "linear") else "start"
    if options.begun_with:
        recipe[begun] = options.begun_with
    elif recipe.get(begun) == "DEFAULT" or begun == "start":
        raise ShippingError(
            f"{options.checkpoint} was begun with {recipe[begun]!r}, which will be something else some day; "
            "say in lasting words what that was: --begun-with V2"
        )
    recipe |= {key: given for key in ("command", "note") if (given := getattr(options, key))}
    data = [
        {"name": name, "licence": licence, "images": integer(images, "--data NAME LICENCE IMAGES")}
        for name, licence, images in options.data
    ]
    return {"licence": options.licence, "training_data": data, "recipe": recipe}


def runs_before(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs before the checkpoint's own: those of --after, then those of --earlier."""
    runs: list[dict[str, Any]] = []
    if options.after is not None:
        try:
            before = json.loads(options.after.read_text())
            own = {} if before["model"] == options.model else {"model": before["model"]}
            runs += [run | own for run in before["recipe"]["runs"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ShippingError(f"--after {options.after}: it is no record of weights") from error
    for steps, batch, patch, optimizer, hours, device in options.earlier:
        where = f"--earlier {' '.join(EARLIER)}"
        sizes = (integer(text, where) for text in (steps, batch, patch))
        run = dict(zip(("steps", "batch_size", "patch"), sizes, strict=True))
        runs.append({**run, "optimizer": optimizer, "hours": number(hours, where), "device": device})
    return runs


def integer(text: str, where: str) -> int:
    """A count from the command line."""
    if not text.isdecimal():
        raise ShippingError(f"{where}: a whole number is wanted, got {text!r}")
    return int(text)


def number(text: str, where: str) -> float:
    """Hours from the command line."""
    try:
        return float(text)
    except ValueError as error:
        raise ShippingError(f"{where}: a number is wanted, got {text!r}") from error


def store(model: AnyModel, folder: Path, metadata: dict[str, Any]) -> dict[str, Path]:
    """Write the candidates, by the name of their dtype."""
    files = {}
    for name, dtype in DTYPES.items():
        try:
            save_checkpoint(model, folder / f"{name}.safetensors", metadata=metadata, dtype=dtype)
        except CheckpointError as error:
            if dtype == torch.float32:
                raise
            print(f"no {name}: {error}")
        else:
            files[name] = folder / f"{name}.safetensors"
    return files


def measure(
    files: Sequence[Path], scale: int, options: argparse.Namespace, through: str | None = None
) -> Report:
    """The table of tools/evaluate.py for the candidates; it must be without gaps."""
    task = Task(
        folders=tuple(options.benchmarks),
        checkpoints=tuple(files),
        scale=scale,
        device=options.device,
        through=through,
    )
    # With TensorFloat32, a GPU's figures would not be those that a CPU gives again.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        report = evaluate(task)
    if report.rows:
        print(to_markdown(report))
    if report.problems or not report.rows:
        raise ShippingError(f"the measurement is not whole: {'; '.join(report.problems)}")
    return report


def measure_through(file: Path, scale: int, options: argparse.Namespace) -> dict[str, Any]:
    """What weights for JPEG come to through it, and the better of the two bicubic kernels."""
    report = measure([file], scale, options, f"jpeg:{options.jpeg}")
    found = metrics(report, file.stem)
    for benchmark in report.benchmarks:
        kernels = [benchmark.figures[row.name].psnr_rgb for row in report.rows if row.kind == "bicubic"]
        found[benchmark.name]["psnr_rgb_bicubic"] = round(max(kernels), 5)
    return {"codec": "jpg", "quality": options.jpeg, "subsampling": "4:2:0", "metrics": found}


def lowest_quality(recipe: dict[str, Any], measured: int) -> int:
    """Of JPEG, that training drew; the measured one where it drew none.

    Example:
        >>> lowest_quality({"degrade": ["jpeg:85-95", "none"]}, 90)
        85
    """
    drawn = [re.search(r"jpeg\w*:(\d+)", text) for text in recipe.get("degrade") or ()]
    return min((int(found[1]) for found in drawn if found), default=measured)


def choose(report: Report, candidates: Sequence[str]) -> str:
    """Float16 if it costs less than the tolerance everywhere."""
    if "float16" not in candidates:
        return "float32"
    full, half = (metrics(report, name) for name in ("float32", "float16"))
    costs = [full[set_][key] - half[set_][key] for set_ in full for key in ("psnr_rgb", "psnr_y")]
    worst = max(costs)
    dtype = "float16" if worst < TOLERATED_DB else "float32"
    print(f"float16 costs {worst:.4f} dB at most (allowed: less than {TOLERATED_DB}): stored in {dtype}")
    return dtype


def metrics(report: Report, candidate: str) -> dict[str, dict[str, Any]]:
    """The figures of one candidate on each benchmark."""
    (row,) = [row for row in report.rows if Path(row.facts.get("file", "")).stem == candidate]
    return {
        benchmark.name: {"images": benchmark.measured, **rounded(finite(benchmark.figures[row.name]) or {})}
        for benchmark in report.benchmarks
    }


def rounded(figures: dict[str, float | None]) -> dict[str, float | None]:
    """To a thousandth of what is usually printed."""
    return {key: None if value is None else round(value, 5) for key, value in figures.items()}


def write(target: Path, record: Path, content: bytes, weights: Weights) -> None:
    """Write both beside their places first, so that a full disk leaves what was there; weights before record.

    So no record ever names weights that are not there, and one that is replaced is there all the time.
    """
    check_size(len(content), target)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = (json.dumps(asdict(weights), indent=2, ensure_ascii=False) + "\n").encode()
    new = {path: path.with_name(f".{path.name}.new") for path in (target, record)}
    try:
        write_atomically(new[target], content)
        write_atomically(new[record], text)
        for path, written in new.items():
            written.replace(path)
    finally:
        for written in new.values():
            written.unlink(missing_ok=True)
    print(f"wrote {target} ({len(content) / 1e6:.2f} MB) and {record}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="ship_weights.py",
        description="Measure a trained checkpoint and put it into the package.",
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="what train_div2k.py left: best.safetensors")
    add("--model", required=True, metavar="NAME", help="the factory whose weights they become")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--version", type=int, metavar="N", help="member VN of the model's enum")
    which.add_argument("--jpeg", type=int, metavar="Q", help="member JPEGQ, for an LR stored at that quality")
    add("--benchmarks", type=Path, nargs="+", required=True, metavar="DIR", help="as for evaluate.py")
    add("--licence", required=True, help="of the weights")
    add(
        "--data",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "LICENCE", "IMAGES"),
        help="training data; repeat it for each set",
    )
    add("--device-used", required=True, metavar="TEXT", help="what it was trained on")
    add("--hours", type=float, required=True, help="how long it was trained, in its last run")
    add("--after", type=Path, metavar="JSON", help="the record of the weights that the run began with")
    add(
        "--earlier",
        nargs=6,
        action="append",
        default=[],
        metavar=EARLIER,
        help="a run before it that nothing has recorded; repeat it for each, in order",
    )
    add("--steps", type=int, help="of training, where the checkpoint does not tell")
    add("--begun-with", metavar="WEIGHTS", help="what the run's --weights or --start were, in lasting words")
    add("--command", metavar="TEXT", help="what trains them again, with DIR for folders")
    add("--note", metavar="TEXT", help="what else belongs to the recipe")
    add("--device", type=usable_device, default=torch.device("cpu"), help="to measure on (default: cpu)")
    add("--accept-structure", action="store_true", help="ship another network than the factory makes")
    add("--replace", action="store_true", help="overwrite weights of that version")
    add("--out", type=Path, default=PRETRAINED, metavar="DIR", help="(default: the package's own folder)")
    options = parser.parse_args(argv)
    if options.version is not None and options.version < 1:
        parser.error(f"--version must be at least 1, got {options.version}")
    if options.jpeg is not None and not 1 <= options.jpeg <= 100:
        parser.error(f"--jpeg is a quality from 1 to 100, got {options.jpeg}")
    if not math.isfinite(options.hours) or options.hours < 0:
        parser.error(f"--hours must be at least 0, got {options.hours}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Ship; return 0, or 2 after an error."""
    try:
        ship(parse(argv))
    except (RescalingError, OSError) as error:
        print(f"ship_weights.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
