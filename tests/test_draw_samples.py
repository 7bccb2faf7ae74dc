"""The picture of what a model stores and restores."""

import pytest
import torch
from PIL import Image

import draw_samples
from invertible_rescaling import iirn_x4, psnr, save_checkpoint
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


def test_a_row_for_each_crop_with_psnr_of_the_crop_and_of_the_whole(
    tmp_path, checkpoint: str, capsys
) -> None:
    model, hr = iirn_x4(blocks=0).eval(), torch.rand(1, 3, 128, 128)
    row = draw_samples.crop_panels(model, "noise", hr, 8, 16)
    lr, restored = row[0].picture, row[3].picture
    assert torch.equal(lr, model.downscale(hr))
    sr = model.upscale(lr, size=(128, 128))
    assert torch.equal(restored, sr[..., 8:104, 16:112])
    assert torch.equal(row[1].picture, hr[..., 8:104, 16:112])
    here, whole = (float(psnr(sr[part], hr[part])) for part in ((..., slice(8, 104), slice(16, 112)), ...))
    assert row[3].caption == f"ours\n{here:.1f} dB, of all {whole:.1f}"

    write_image(tmp_path / "noise.png", hr[0])
    crops = ["--crop", "noise", "0", "0", "--crop", "noise", "32", "16"]
    out = tmp_path / "crops.png"
    command = ["--weights", checkpoint, "--images", str(tmp_path), "--out", str(out), *crops]
    assert draw_samples.main(command) == 0
    assert draw_samples.main([*command, "--crop", "painter", "0", "0"]) == 2
    assert "no such picture" in capsys.readouterr().err
    with Image.open(out) as sheet:
        assert sheet.size == (MARGIN + 4 * (SIDE + MARGIN), MARGIN + 2 * (SIDE + CAPTION + MARGIN))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (["--crop", "astronaut", "417", "0"], "512x512"),
        (["--crop", "astronaut", "up", "0"], "two whole numbers"),
        (["--crop", "painter", "0", "0"], "painter"),
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
