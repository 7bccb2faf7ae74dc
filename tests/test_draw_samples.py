"""The picture of what a model stores and restores."""

import pytest
import torch
from PIL import Image

import draw_samples
from invertible_rescaling import iirn_x4, save_checkpoint
from invertible_rescaling.images import write_image
from invertible_rescaling.images.contact_sheet import CAPTION, MARGIN, SIDE


@pytest.fixture
def checkpoint(tmp_path) -> str:
    path = tmp_path / "model.safetensors"
    save_checkpoint(iirn_x4(blocks=1), path)
    return str(path)


def test_a_row_for_each_photograph(tmp_path, checkpoint: str, capsys) -> None:
    folder, out = tmp_path / "photographs", tmp_path / "deep" / "samples.png"
    folder.mkdir()
    for name, size in {"tall": (90, 30), "wide": (24, 1000)}.items():
        write_image(folder / f"{name}.png", torch.rand(3, *size))
    command = ["--weights", checkpoint, "--images", str(folder), "--out", str(out)]
    assert draw_samples.main(command) == 0
    with Image.open(out) as sheet:
        rows = 2 * (SIDE + CAPTION + MARGIN)
        assert sheet.size[1] == MARGIN + rows
    assert str(out) in capsys.readouterr().out


def test_what_is_drawn_is_what_the_captions_say() -> None:
    model, hr = iirn_x4(blocks=0).eval(), torch.rand(1, 3, 64, 64)
    row = draw_samples.panels(model, hr, "noise")
    assert torch.equal(row[1].picture, model.downscale(hr))
    assert row[1].caption.startswith("LR, ours")
    grey = draw_samples.panels(model, torch.full((1, 3, 64, 64), 0.6), "grey")[2].picture
    assert torch.equal(grey, torch.full_like(grey, 0.5))  # no difference


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (["--weights", "missing.safetensors"], "missing"),
        (["--images", "missing"], "missing"),
        (["--out", "samples.nothing"], "samples"),
        (["--model", "iirn_x5"], "iirn_x"),
    ],
)
def test_bad_input_is_one_line(change, match: str, tmp_path, checkpoint: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = [] if "--weights" in change or "--model" in change else ["--weights", checkpoint]
    command = [*weights, "--limit", "1", "--out", "x.png", *change]
    assert draw_samples.main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert match in error
