"""The table of what comes back of an LR that was stored with loss."""

import pytest
import torch

import measure_codecs
from invertible_rescaling import linear_x2
from invertible_rescaling.evaluation import bicubic_rescale, measure, model_rescale
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.training.degradations import jpeg
from tests.pictures import pictures
from tests.shell import cells_of


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path / "Two", 2)


def test_the_table_has_what_is_measured_by_hand(folder, capsys) -> None:
    arguments = [str(folder), "--model", "linear_x2:DEFAULT", "--codec", "none", "jpeg:50"]
    assert measure_codecs.main(arguments) == 0
    head, _, clean, stored, likeness = cells_of(capsys.readouterr().out)
    assert head == ["LR stored as", "bicubic", "linear_x2:DEFAULT"]
    model = linear_x2(weights="DEFAULT").eval()
    for row, through in ((clean, None), (stored, lambda lr: jpeg(lr, 50))):
        for cell, rescale in (
            (row[1], bicubic_rescale(2, through=through)),
            (row[2], model_rescale(model, through=through)),
        ):
            images = [from_uint8(read_image(path))[None] for path in find_images(folder)]
            with torch.no_grad():
                found = [measure(rescale, image, 2).figures["psnr_rgb"] for image in images]
            assert cell == f"{sum(found) / len(found):.2f}"
    assert (stored[0], likeness[:2]) == ("jpeg:50", ["LR against bicubic", "same"])
    assert float(stored[2]) < float(clean[2])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "linear_x2:DEFAULT", "small_x4:DEFAULT"], r"one scale are compared, got [2, 4]"),
        (["--model", "linear_x2:V9"], "V9"),
        (["--model", "linear_x2:DEFAULT", "--codec", "crop:0.5"], "crop:0.5 changes what should come back"),
        (["--model", "linear_x2:DEFAULT", "--codec", "gif:5"], "'gif:5' is no degradation"),
    ],
)
def test_what_cannot_be_measured_is_named(folder, capsys, more: list[str], message: str) -> None:
    assert measure_codecs.main([str(folder), *more]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len([line for line in said.splitlines() if line.startswith("measure_codecs.py: ")]) == 1
