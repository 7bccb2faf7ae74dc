"""The commands ``models`` and ``info``."""

import json
from pathlib import Path
from typing import Any

from invertible_rescaling.errors import ConfigError, first_line
from invertible_rescaling.images import Picture, read_picture
from invertible_rescaling.images.exif import holds_place
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.networks import shipped
from invertible_rescaling.pipeline.record import KEY, Record, record_of
from invertible_rescaling.pipeline.tasks import as_made, edited
from invertible_rescaling.registry import create_model, list_models
from invertible_rescaling.weights.checkpoint import read_checkpoint
from invertible_rescaling.weights.enums import WeightsEnum, weights_of

__all__: list[str] = []  # for the command line alone

BENCHMARKS = ("Set5", "Set14", "BSD100")


def models() -> list[dict[str, Any]]:
    """All models by name; those with trained weights once for each set of them.

    Returns:
        ``model``, ``kind`` (``rescaler``, or ``super-resolver``, to compare with), ``parameters``,
        ``weights`` (with ``(default)`` behind the newest), ``licence`` and, for each benchmark, PSNR in dB
        on RGB; of weights for an LR stored as JPEG through that.
    """
    rows: list[dict[str, Any]] = []
    for name in list_models():
        members = shipped(name)
        if members:
            default = weights_of(name).DEFAULT
            kind = "super-resolver" if "architecture" in default.value.config else "rescaler"
            members = members[::-1]  # the newest first, those for JPEG after them
            members.sort(key=lambda member: member.value.through is not None)
            rows += [_trained(name, kind, member, member is default) for member in members]
            continue
        try:
            model = create_model(name)
        except Exception as error:  # of another package's model, which may need arguments, or be broken
            rows.append({"model": name, "kind": f"cannot be made as it is ({first_line(error)})"})
            continue
        kind = "rescaler" if isinstance(model, InvertibleRescaler) else "super-resolver"
        parameters = sum(p.numel() for p in model.parameters())
        rows.append({"model": name, "kind": kind, "parameters": parameters, "weights": "none yet"})
    return rows


def _trained(name: str, kind: str, member: WeightsEnum, newest: bool) -> dict[str, Any]:
    known = member.value
    metrics = known.metrics if known.through is None else known.through["metrics"]
    figures = {key: metrics[key]["psnr_rgb"] for key in BENCHMARKS if key in metrics}
    return {
        "model": name,
        "kind": kind,
        "parameters": known.parameters,
        "weights": member.name
        + (" (default)" if newest else "")
        + (", of LR as jpg" if known.through else ""),
        "licence": known.licence,
        **{key: round(value, 2) for key, value in figures.items() if value is not None},
    }


def facts_of(path: Path) -> dict[str, Any]:
    """Return the facts that a picture or a checkpoint carries, as plain data.

    Raises:
        ImageError: the file is neither, or is corrupt.
        CheckpointError: it is a checkpoint, and damaged.
    """
    if path.suffix == ".safetensors":
        return _of_checkpoint(path)
    return _of_picture(read_picture(path))


def _of_checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    names = [
        f"{name} {member.name}"
        for name in list_models(pretrained=True)
        for member in shipped(name)
        if member.value.sha256 == checkpoint.sha256
    ]
    return {
        "kind": "checkpoint",
        "sha256": checkpoint.sha256,
        "shipped as": names[0] if names else "not shipped",
        **checkpoint.config,
        **{key: value for key, value in checkpoint.metadata.items() if key not in checkpoint.config},
    }


def _of_picture(picture: Picture) -> dict[str, Any]:
    height, width = picture.size
    facts: dict[str, Any] = {"kind": picture.kind, "size": f"{width}x{height}"}
    facts |= {"ICC profile": f"{len(picture.icc):,} bytes"} if picture.icc else {}
    if picture.exif:
        place = ", with the place (GPS)" if holds_place(picture.exif) else ""
        facts["EXIF"] = f"{len(picture.exif):,} bytes{place}"
    facts |= {"XMP": f"{len(picture.xmp):,} bytes"} if picture.xmp else {}
    facts |= {"resolution": "{:g}x{:g} dpi".format(*picture.dpi)} if picture.dpi else {}
    facts |= (
        {"text": ", ".join(key for key in picture.text if key != KEY)} if set(picture.text) - {KEY} else {}
    )
    try:
        record = record_of(picture)
    except ConfigError as error:
        return facts | {"made by": f"invertible_rescaling; {error}"}
    return facts | (_of_record(picture, record) if record else {"made by": "nothing of this library"})


def _of_record(picture: Picture, record: Record) -> dict[str, Any]:
    members = [m.name for m in shipped(record.model) if m.value.sha256 == record.weights_sha256]
    facts: dict[str, Any] = {
        "made by": f"invertible_rescaling {record.version}",
        "as": {"lr": "LR, by downscale", "restored": "restored, by upscale"}[record.kind],
        "model": f"{record.model}, scale {record.scale}",
        "weights": f"{members[0] if members else 'not shipped'}, SHA-256 {record.weights_sha256}",
        "original size": "{1}x{0}".format(*record.original_size),
        "source": f"{record.source_format}, SHA-256 {record.source_sha256}",
    }
    problem = edited(as_made(picture, record), record, kind=record.kind)
    facts["pixels"] = problem or ("as written" if record.pixels_sha256 else "stored with loss")
    return facts


def tell_models(as_json: bool) -> int:
    """Print :func:`models` as a table, or for programs; return the exit code."""
    found, console = models(), Console.of()
    if as_json:
        return _tell_json(found, console)
    columns = list(dict.fromkeys(key for row in found for key in row))
    table = [[_cell(row.get(key, "")) for key in columns] for row in found]
    widths = [max(map(len, cells)) for cells in zip(columns, *table, strict=True)]
    heads = [f"{key}, dB" if key in BENCHMARKS else key for key in columns]
    widths = [max(width, len(head)) for width, head in zip(widths, heads, strict=True)]
    for line in (heads, *table):
        console.print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def tell_facts(path: Path, as_json: bool) -> int:
    """Print :func:`facts_of` a file, or print them for programs; return the exit code.

    Raises:
        ImageError, CheckpointError: the file is neither a picture nor a checkpoint that can be read.
    """
    found, console = facts_of(path), Console.of()
    if as_json:
        return _tell_json(found, console)
    for key, value in found.items():
        console.print(f"{key}: {value}")
    return 0


def _tell_json(facts: Any, console: Console) -> int:
    for line in json.dumps(facts, indent=2).splitlines():
        console.print(line)
    return 0


def _cell(value: str | int | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
