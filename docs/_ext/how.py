"""Drawings and pictures of "How it works", made from the real modules."""

from pathlib import Path

import torch
from diagram import Diagram
from front import image_of
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from invertible_rescaling import CRDB, AffineCoupling, InvertibleRescaler, iirn_x4, linear_x4
from invertible_rescaling.evaluation import bicubic_lr
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph
from tests.tree import PACKAGE, imports_of, levels

ENHANCED = 8


def write(made: Path) -> None:
    """Write ``made/*.html`` and the pictures they show."""
    model = iirn_x4(weights="DEFAULT").eval()
    drawings = {"rescaler": _rescaler(model), "coupling": _coupling(model), "crdb": _crdb(model)}
    for name, diagram in (drawings | {"imports": _imports()}).items():
        (made / f"{name}.html").write_text(f'<div class="diagram-wide">{diagram.html()}</div>\n')
    folder = made / "static" / "how"
    folder.mkdir(exist_ok=True)
    hr = from_uint8(photograph("astronaut")).unsqueeze(0)
    with torch.inference_mode():
        (made / "latents.html").write_text(_latents(model, hr, folder))
        (made / "code.html").write_text(_code(hr, folder))


def _stages(model: InvertibleRescaler) -> list[list[AffineCoupling]]:
    """The couplings behind each Haar step."""
    stages: list[list[AffineCoupling]] = []
    for layer in model.flow:
        if isinstance(layer, AffineCoupling):
            stages[-1].append(layer)
        else:
            stages.append([])
    return stages


def _rescaler(model: InvertibleRescaler) -> Diagram:
    stages = _stages(model)
    label = (
        f"The flow of iirn_x4: {len(stages)} Haar steps, each followed by couplings, between HR and LR with z"
    )
    diagram = Diagram("rescaler", label, 760, 150)
    diagram.box(5, 45, 80, 60, "HR", f"{model.channels} × H × W", filled=True)
    x, channels, share = 110.0, model.channels, 1
    diagram.arrow((85, 75), (x, 75))
    for stage in stages:
        channels, share = 4 * channels, 2 * share
        diagram.box(x, 50, 60, 50, "Haar")
        diagram.arrow((x + 60, 75), (x + 85, 75))
        diagram.box(x + 85, 50, 125, 50, f"{len(stage)} couplings")
        diagram.text(x + 147, 122, f"{channels} × H/{share} × W/{share}", small=True)
        x += 235
        diagram.arrow((x - 25, 75), (x, 75))
    diagram.box(
        x, 8, 165, 56, "LR, rounded to 8 bits", f"{model.channels} × H/{share} × W/{share}", filled=True
    )
    diagram.box(x, 84, 165, 56, "z, left out", f"{channels - model.channels} × H/{share} × W/{share}")
    return diagram


def _coupling(model: InvertibleRescaler) -> Diagram:
    coupling = _stages(model)[-1][0]
    channels, split = coupling.channels, coupling.split
    label = f"A coupling of {channels} channels: phi adds to {split}, rho and eta scale and shift the rest"
    diagram = Diagram("coupling", label, 640, 210)
    diagram.text(8, 50, f"x₁: {split} channels", anchor="start")
    diagram.text(8, 170, f"x₂: {channels - split} channels", anchor="start")
    diagram.box(235, 33, 30, 30, "+")
    diagram.arrow((125, 48), (235, 48))
    diagram.arrow((265, 48), (560, 48))
    diagram.box(232, 92, 36, 34, "φ", filled=True)
    diagram.arrow((180, 165), (180, 109), (232, 109))
    diagram.arrow((250, 92), (250, 63))
    diagram.box(345, 92, 50, 34, "s ∘ ρ", filled=True)
    diagram.box(455, 92, 36, 34, "η", filled=True)
    diagram.arrow((370, 48), (370, 92))
    diagram.arrow((473, 48), (473, 92))
    diagram.box(340, 150, 60, 30, "× exp")
    diagram.box(458, 150, 30, 30, "+")
    diagram.arrow((125, 165), (340, 165))
    diagram.arrow((370, 126), (370, 150))
    diagram.arrow((400, 165), (458, 165))
    diagram.arrow((473, 126), (473, 150))
    diagram.arrow((488, 165), (560, 165))
    diagram.text(568, 53, "y₁", anchor="start")
    diagram.text(568, 170, "y₂", anchor="start")
    return diagram


def _crdb(model: InvertibleRescaler) -> Diagram:
    block = _stages(model)[-1][0].phi
    if not isinstance(block, CRDB):
        raise TypeError(f"iirn_x4 has {type(block).__name__} in its couplings, not CRDB")
    convolutions = [*block.features.convs, block.last]
    given = convolutions[0].weight.shape[1]
    label = f"CRDB: {len(convolutions)} convolutions, each of which sees the block's input and all before it"
    diagram = Diagram("crdb", label, 125 * len(convolutions) + 245, 175)
    diagram.text(10, 95, f"{given} channels", anchor="start")
    diagram.arrow((90, 90), (115, 90))
    x = 115
    for number, convolution in enumerate(convolutions):
        last = number == len(convolutions) - 1
        if last and block.attention is not None:
            diagram.box(x, 65, 95, 50, "channel", "attention")
            diagram.arrow((x + 95, 90), (x + 120, 90))
            x += 120
        filters, channels = convolution.weight.shape[:2]
        dilated = f", dilation {convolution.dilation}" if convolution.dilation != 1 else ""
        diagram.box(x, 60, 100, 60, f"3×3{dilated}", f"{channels} → {filters}", filled=True)
        diagram.arrow((x + 100, 90), (x + 125, 90))
        if not last:
            diagram.arrow((x + 112, 90), (x + 112, 32 + 5 * number), (x + 150, 32 + 5 * number), faint=True)
        x += 125
    diagram.text(
        115,
        24,
        "each convolution also sees the input and the outputs of all before it",
        anchor="start",
        small=True,
    )
    diagram.text(115, 150, "LeakyReLU 0.2 behind each but the last", anchor="start", small=True)
    return diagram


def _imports() -> Diagram:
    found = levels()
    most = max(found.values())
    rows = [sorted(room for room, level in found.items() if level == row) for row in range(most, 0, -1)]
    width = 145 * max(map(len, rows)) + 60
    diagram = Diagram("imports", "Folders and modules by level, and which imports which", width, 78 * most)
    places = {}
    for number, row in enumerate(rows):
        left = (width - 145 * len(row)) / 2
        for column, room in enumerate(row):
            places[room] = (left + 145 * column + 10, 78 * number + 20)
    for room, others in imports_of().items():
        for other in others:
            (x, y), (across, down) = places[room], places[other]
            diagram.arrow((x + 62, y + 34), (across + 62, down), faint=True)
    for room, (x, y) in places.items():
        folder = (PACKAGE / room).is_dir()
        diagram.box(x, y, 125, 34, f"{room}/" if folder else f"{room}.py", filled=folder)
    return diagram


def _latents(model: InvertibleRescaler, hr: Tensor, folder: Path) -> str:
    lr, z = model(hr)
    guessed = model.latent(lr)
    sizes = {"z, from the original": z, "ẑ, made from LR": guessed, "what is missing: z − ẑ": z - guessed}
    most = z.abs().mean(1).quantile(0.995)
    figures = []
    for number, (caption, values) in enumerate(sizes.items()):
        size = values.abs().mean(1, keepdim=True) / most
        _grey(size).save(folder / f"latent_{number}.webp", lossless=True)
        mean = f"{float(values.abs().mean()):.4f}"
        figures.append(_figure(f"latent_{number}.webp", f"{caption} (mean {mean})"))
    return _row(figures)


def _code(hr: Tensor, folder: Path) -> str:
    model = linear_x4(weights="DEFAULT").eval()
    lr, plain = model.downscale(hr), bicubic_lr(hr, 4)
    pictures = {
        "bicubic LR": plain,
        "LR of linear_x4": lr,
        f"{ENHANCED} × their difference, around grey": 0.5 + ENHANCED * (lr - plain),
    }
    figures = []
    for number, (caption, picture) in enumerate(pictures.items()):
        large = interpolate(picture.clamp(0, 1), scale_factor=2, mode="nearest")
        image_of(large).save(folder / f"code_{number}.webp", lossless=True)
        figures.append(_figure(f"code_{number}.webp", caption))
    return _row(figures)


def _grey(plane: Tensor) -> Image.Image:
    return image_of(interpolate(plane.clamp(0, 1), scale_factor=2, mode="nearest").expand(-1, 3, -1, -1))


def _figure(file: str, caption: str) -> str:
    return (
        f'<figure><img src="_static/how/{file}" width="256" height="256" loading="lazy" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _row(figures: list[str]) -> str:
    return f'<div class="front-crops">{"".join(figures)}</div>\n'
