"""What evaluate.py draws and what it says that the paper prints."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import evaluation.picture
from evaluation.measuring import Benchmark
from evaluation.methods import Row
from evaluation.paper import BICUBIC, PAPER, SETS
from evaluation.picture import draw, panel
from evaluation.report import Report
from evaluation.task import Task
from invertible_rescaling.images import write_image
from invertible_rescaling.images.contact_sheet import Panel
from tests.strategies import uint8_image, uniform

# PSNR/SSIM as they stand in print, once more.
RGB = """
          Set5        Set14       BSD100      Urban100
SRCNN     28.43/0.81  25.51/0.71  25.43/0.67  22.76/0.68
SRResNet  30.23/0.85  26.75/0.75  26.22/0.70  24.57/0.76
SRGAN     27.94/0.78  24.75/0.67  24.21/0.61  22.76/0.69
ESRGAN    30.64/0.86  27.06/0.76  26.41/0.71  25.28/0.78
EDSR      30.22/0.85  26.76/0.75  26.23/0.70  24.51/0.76
IRN       33.11/0.91  30.04/0.86  29.76/0.86  28.60/0.88
IIRN      32.99/0.91  30.12/0.87  29.77/0.86  28.91/0.89
"""
Y = """
          Set5         Set14        BSD100       Urban100
bicubic   28.42        26.00        25.96        23.14
IRN       36.19/.9451  32.67/.9015  31.64/.8826  31.41/.9157
"""


def figures(text: str) -> dict[str, dict[str, str]]:
    head, *lines = (line.split() for line in text.strip().splitlines())
    return {title: dict(zip(head, cells, strict=True)) for title, *cells in lines}


def test_what_the_papers_table_prints_is_what_the_papers_print() -> None:
    systems = [BICUBIC, *PAPER.values()]
    for text, printed in ((RGB, {s.title: s.rgb for s in systems}), (Y, {s.title: s.y for s in systems})):
        by_set = {
            title: dict(zip(SETS, cells, strict=True)) for title, cells in printed.items() if any(cells)
        }
        assert by_set == figures(text)
    assert {name.removesuffix("_x4"): system.title.lower() for name, system in PAPER.items()} == {
        title.lower(): title.lower() for title in figures(RGB)
    }


# ---- the picture


def worse(by: float) -> Row:
    """Adds as much to every pixel, and far more to a border of 4, which is not measured."""

    def method(hr: Tensor) -> tuple[Tensor, Tensor]:
        sr = torch.ones_like(hr)
        sr[..., 4:-4, 4:-4] = hr[..., 4:-4, 4:-4] + by
        return hr[..., ::4, ::4], sr

    return Row(f"off by {by} (x4 crdb 1+1)", "model", method)


@pytest.mark.parametrize("by", [0.01, 0.1])
def test_a_panel_is_the_crop_of_sr_with_its_psnr(by: float) -> None:
    hr = 0.8 * uniform(1, 3, 24, 32)
    found = panel(worse(by), hr, (6, 8, 10), scale=4)
    assert found.caption == f"off by {by}\n{-20 * math.log10(by):.2f} dB"
    assert torch.equal(found.picture, hr[..., 6:16, 8:18] + by)


def test_sr_is_clamped_before_it_is_judged_and_drawn() -> None:
    hr = torch.ones(1, 3, 24, 24)
    row = Row("bright", "model", lambda hr: (hr[..., ::4, ::4], torch.where(hr > 0, 1.5, 0.9)))
    assert panel(row, hr, (0, 0, 24), scale=4).caption == "bright\ninf dB"
    assert panel(row, hr, (0, 0, 24), scale=4).picture.max() == 1


def test_the_sheet_has_the_original_and_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = uint8_image(3, 24, 32) // 2
    write_image(tmp_path / "bird.png", image)
    drawn: list[Panel] = []
    compose = evaluation.picture.compose

    def recorded(rows):
        drawn.extend(panel for row in rows for panel in row)
        return compose(rows)

    monkeypatch.setattr(evaluation.picture, "compose", recorded)
    bicubic = [
        Row(f"bicubic {i}", "bicubic", lambda hr, i=i: (hr[..., ::4, ::4], 0 * hr + i / 10)) for i in (1, 2)
    ]
    benchmark = Benchmark("birds", [tmp_path / "bird.png"], 1)
    rows = [*bicubic, worse(0.01), worse(0.1)]
    report = Report(Task((tmp_path,), crop=(6, 8, 10)), rows, [benchmark], [])
    draw(report, tmp_path / "sheet.png")
    assert report.problems == []
    assert (tmp_path / "sheet.png").is_file()
    hr = image.unsqueeze(0) / 255
    crop = hr[..., 6:16, 8:18]
    overview, original, first, *models = drawn
    assert overview.caption == "bird\n"
    assert overview.picture.shape == hr.shape
    assert original.caption == "original\nPSNR, RGB"
    assert torch.equal(original.picture, crop)
    assert first.caption.startswith("bicubic\n")
    assert (first.picture == 0.1).all()  # of the two kernels, MATLAB's
    assert [model.caption for model in models] == ["off by 0.01\n40.00 dB", "off by 0.1\n20.00 dB"]
    for model, by in zip(models, (0.01, 0.1), strict=True):
        assert torch.equal(model.picture, crop + by)
