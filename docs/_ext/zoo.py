"""The model zoo: a table of all shipped weights from their records, and a sample of what each brings back."""

import json
from pathlib import Path
from typing import Any

import torch
from front import image_of
from torch.nn.functional import interpolate

from invertible_rescaling import InvertibleRescaler, create_model, list_models, psnr
from invertible_rescaling.evaluation import bicubic_rescale
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph
from invertible_rescaling.weights import weights_of

_SPEED = Path(__file__).parents[1] / "measured" / "speed.json"
_FILES = Path(__file__).parents[2] / "invertible_rescaling" / "weights" / "files"
TOP, LEFT, SIDE, ENLARGED = 96, 168, 96, 2
BENCHMARKS = ("Set5", "Set14", "BSD100")
HEADS = (
    "model",
    "weights",
    *(f"{name} dB" for name in BENCHMARKS),
    "LR dB",
    "MP/s down",
    "MP/s up",
    "parameters",
    "multiply-adds a pixel",
    *(f"{name} dB, Y" for name in BENCHMARKS),
    "file MB",
    "trained, hours",
    "licence",
)


def write(made: Path) -> None:
    """Write ``made/zoo.html``, ``made/zoo_samples.html`` and their pictures."""
    names = [name for name in list_models(pretrained=True) if _is_rescaler(name)]
    names.sort(key=lambda name: (int(name.rpartition("x")[2]), weights_of(name)["DEFAULT"].value.parameters))
    (made / "zoo.html").write_text(_table(names))
    (made / "zoo_samples.html").write_text(_samples(names, made / "static" / "zoo"))


def _is_rescaler(name: str) -> bool:
    return isinstance(create_model(name), InvertibleRescaler)


def _table(names: list[str]) -> str:
    speed = json.loads(_SPEED.read_text())["speed"]
    rows = []
    for name in names:
        default = weights_of(name)["DEFAULT"]
        for member in weights_of(name):
            cells = _cells(name, member.name, member.value, member is default, speed)
            rows.append("".join(_cell(value) for value in cells))
    heads = "".join(f'<th scope="col"><button type="button">{head}</button></th>' for head in HEADS)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        '<div class="zoo-wide" tabindex="0" role="region" aria-label="Models"><table class="zoo sortable">'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _cells(name: str, member: str, facts: Any, is_default: bool, speed: list[dict[str, Any]]) -> list[Any]:
    pixels = facts.multiply_adds["hr_size"][0] * facts.multiply_adds["hr_size"][1]
    both = facts.multiply_adds["downscale"] + facts.multiply_adds["upscale"]
    rates = (
        [row for row in speed if (row["model"], row["engine"], row["threads"]) == (name, "torch", 2)]
        if is_default
        else []
    )
    through = f" (through JPEG {member.removeprefix('JPEG')})" if facts.through else ""
    return [
        name,
        f"{member}{', default' if is_default else through}",
        *(facts.metrics[benchmark]["psnr_rgb"] for benchmark in BENCHMARKS),
        facts.metrics["Set5"]["psnr_lr"],
        rates[0]["down MP/s"] if rates else None,
        rates[0]["up MP/s"] if rates else None,
        facts.parameters,
        both / pixels,
        *(facts.metrics[benchmark]["psnr_y"] for benchmark in BENCHMARKS),
        (_FILES / facts.file).stat().st_size / 1e6,
        sum(run["hours"] for run in facts.recipe["runs"]),
        facts.licence,
    ]


def _cell(value: Any) -> str:
    if value is None:
        return '<td data-value="0"></td>'
    if isinstance(value, str):
        return f"<td>{value}</td>"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if value < 100 else f"{value:,.0f}"
    return f'<td data-value="{value}">{shown}</td>'


@torch.inference_mode()
def _samples(names: list[str], folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    hr = from_uint8(photograph("astronaut")).unsqueeze(0)
    found = {"original": (hr, None)}
    for scale in (2, 4, 8):
        found[f"bicubic x{scale}"] = (bicubic_rescale(scale)(hr)[1], hr)
        for name in names:
            if name.endswith(f"x{scale}"):
                model = create_model(name, weights="DEFAULT").eval()
                found[name] = (model.upscale(model.downscale(hr), size=hr.shape[-2:]), hr)
    figures = []
    for name, (picture, reference) in found.items():
        crop = picture[..., TOP : TOP + SIDE, LEFT : LEFT + SIDE]
        file = f"{name.replace(' ', '_')}.webp"
        image_of(interpolate(crop, scale_factor=ENLARGED, mode="nearest")).save(folder / file, lossless=True)
        decibels = "" if reference is None else f", {float(psnr(picture, reference).mean()):.1f} dB"
        figures.append(
            f'<figure><img src="_static/zoo/{file}" width="192" height="192" loading="lazy" '
            f'alt="A crop by {name}"><figcaption>{name}{decibels}</figcaption></figure>'
        )
    return f'<div class="zoo-samples">{"".join(figures)}</div>\n'
