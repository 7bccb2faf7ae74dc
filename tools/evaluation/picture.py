"""Crops of one image by every method, with PSNR under each, as in the paper's Fig. 6."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evaluation.measuring import read_hr
from evaluation.methods import Row
from evaluation.report import Report
from evaluation.words import one_line
from invertible_rescaling import RescalingError
from invertible_rescaling.errors import ImageError
from invertible_rescaling.evaluation import measure
from invertible_rescaling.images.contact_sheet import SIDE, Panel, compose

COLUMNS = 4
SUFFIXES = (".png", ".webp")


def draw(report: Report, target: Path) -> None:
    """Draw an image that was measured, by every row; what goes wrong is added to the problems."""
    task, problems = report.task, report.problems
    try:
        path, hr = chosen_image(report)
        spot = find_spot(hr, task.crop)
    except ImageError as error:
        problems.append(f"no --picture: {one_line(error)}")
        return
    panels = [Panel(overview(hr, spot), f"{path.stem}\n"), Panel(cut(hr, spot), "original\nPSNR, RGB")]
    with torch.inference_mode():
        models = [row for row in report.rows if row.kind != "bicubic"]
        for row in [*report.rows[:1], *models]:
            try:
                panels.append(panel(row, hr, spot, task.scale))
            except (RescalingError, torch.OutOfMemoryError) as error:
                problems.append(f"{row.name} is not in --picture: {one_line(error)}")
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    try:
        compose(rows).save(target)
    except (OSError, ValueError) as error:  # Pillow's word for a suffix it does not know
        problems.append(f"cannot write --picture {target}: {one_line(error)}")


def chosen_image(report: Report) -> tuple[Path, Tensor]:
    """The first image that was measured, or that of the name asked for, ``(1, 3, H, W)`` in [0, 1].

    Raises:
        ImageError: none was.
    """
    name = report.task.picture_of
    for benchmark in report.benchmarks:
        bad = {path for path, _ in benchmark.skipped}
        for path in benchmark.images:
            if path not in bad and name in (None, path.name, path.stem):
                return path, read_hr(path, report.task.scale).to(report.task.device)
    raise ImageError("there is no image to draw" if name is None else f"no image {name!r} was measured")


def panel(row: Row, hr: Tensor, spot: tuple[int, int, int], scale: int) -> Panel:
    """One method's crop; PSNR is that of the whole image."""
    figures, _, sr = measure(row.rescale, hr, scale)
    name = "bicubic" if row.kind == "bicubic" else row.name.split(" (")[0]
    return Panel(cut(sr, spot), f"{name[:24]}\n{figures['psnr_rgb']:.2f} dB")


def find_spot(hr: Tensor, crop: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Top, left and side of the crop: the one asked for, or the middle.

    Raises:
        ImageError: the image does not hold it.
    """
    height, width = hr.shape[2:]
    if crop is None:
        side = min(height, width, SIDE // 2)
        return (height - side) // 2, (width - side) // 2, side
    top, left, side = crop
    if top + side > height or left + side > width:
        raise ImageError(f"--crop {top} {left} {side} does not lie within an image of {width}x{height}")
    return crop


def cut(image: Tensor, spot: tuple[int, int, int]) -> Tensor:
    """The crop; as large as a panel where it is larger."""
    top, left, side = spot
    found = image[..., top : top + side, left : left + side].cpu()
    return found if side <= SIDE else interpolate(found, size=(SIDE, SIDE), mode="area")


def overview(hr: Tensor, spot: tuple[int, int, int]) -> Tensor:
    """The whole image as large as a panel, with a frame around the crop."""
    image = hr.cpu().clone()
    top, left, side = spot
    height, width = image.shape[2:]
    thick = max(2, max(height, width) // SIDE * 2)
    framed = torch.zeros(height, width, dtype=torch.bool)
    framed[max(0, top - thick) : top + side + thick, max(0, left - thick) : left + side + thick] = True
    framed[top : top + side, left : left + side] = False
    red = torch.tensor((1.0, 0.1, 0.1)).view(1, 3, 1, 1)
    image = torch.where(framed, red, image)
    factor = SIDE / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return image if factor >= 1 else interpolate(image, size=size, mode="area")
