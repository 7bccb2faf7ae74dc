"""One PSNR for one model and one file, wherever it is measured."""

import json

import pytest
import torch

import evaluate
from invertible_rescaling import create_model, linear_x4, psnr, ssim
from invertible_rescaling.cli import main
from invertible_rescaling.errors import ShapeError
from invertible_rescaling.evaluation import (
    METRICS,
    bicubic_lr,
    bicubic_rescale,
    compare,
    measure,
    model_rescale,
)
from invertible_rescaling.images import from_uint8, read_image, write_image
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.validation import load_validation, measure_images
from tests.shell import photograph

CPU = torch.device("cpu")


@pytest.fixture
def odd_photograph(tmp_path):
    """A file of 103x101, sides that are no multiples of the scale."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    image = torch.from_numpy(photograph(101, 103)).permute(2, 0, 1).contiguous()
    write_image(folder / "odd.png", image)
    return folder / "odd.png"


def test_validation_tables_and_roundtrip_give_one_psnr(odd_photograph, capsys) -> None:
    folder = odd_photograph.parent
    wanted = measure(model_rescale(linear_x4(weights="DEFAULT")), _hr(odd_photograph), 4).figures
    by_bicubic = measure(bicubic_rescale(4), _hr(odd_photograph), 4).figures

    images = load_validation(folder, 4, None, print)
    model = linear_x4(weights="DEFAULT").eval()
    assert measure_images(images, CPU, model_rescale(model), 4)[0] == wanted

    assert evaluate.main([str(folder), "--model", "linear_x4:DEFAULT", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[2]["figures"]["photographs"]["psnr_rgb"] == pytest.approx(wanted["psnr_rgb"], abs=1e-6)
    assert rows[1]["figures"]["photographs"]["psnr_rgb"] == pytest.approx(by_bicubic["psnr_rgb"], abs=1e-6)

    assert main(["roundtrip", str(odd_photograph), "--model", "linear_x4", "--rows", "0"]) == 0
    out = capsys.readouterr().out
    size, small, *figures = out.splitlines()[2].split()
    assert (size, small) == ("100x100", "25x25")  # of 103x101, cropped
    ours, bicubic = map(float, figures[:2])
    assert ours == pytest.approx(wanted["psnr_rgb"], abs=0.006)
    assert bicubic == pytest.approx(by_bicubic["psnr_rgb"], abs=0.006)


def test_measuring_follows_the_convention() -> None:
    hr = from_uint8(torch.from_numpy(photograph(67, 70)).permute(2, 0, 1))[None]
    model = randomize(create_model("iirn_x4", blocks=1), 0.3)
    cropped = hr[..., :64, :68]
    lr, sr = model_rescale(model)(cropped)
    found = measure(model_rescale(model), hr, 4)
    assert torch.equal(found.lr, lr)
    assert torch.equal(found.sr, sr.clamp(0, 1))
    assert found.figures == {
        "psnr_rgb": float(psnr(sr, cropped, border=4)),
        "psnr_y": float(psnr(sr, cropped, space="y", border=4)),
        "ssim_rgb": float(ssim(sr, cropped, border=4)),
        "ssim_y": float(ssim(sr, cropped, space="y", border=4)),
        "lr_psnr_rgb": float(psnr(lr, bicubic_lr(cropped, 4))),
        "lr_psnr_y": float(psnr(lr, bicubic_lr(cropped, 4), space="y")),
    }
    assert tuple(sorted(found.figures)) == tuple(sorted(METRICS))


def test_random_latents_are_drawn_alike_and_leave_the_generator_as_it_is() -> None:
    model = randomize(create_model("irn_x4", blocks=1), 0.3)
    hr = torch.rand(1, 3, 32, 32)
    before = torch.get_rng_state()
    first, second = (measure(model_rescale(model), hr, 4).sr for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(measure(model_rescale(model, seed=1), hr, 4).sr, first)


def test_small_images_are_refused_or_compared_whole() -> None:
    with pytest.raises(ShapeError, match=r"16x16 is too small to be measured at scale 4.*at least 20x20"):
        measure(bicubic_rescale(4), torch.rand(1, 3, 19, 18)[..., :17, :], 4)
    image, other = torch.rand(1, 3, 12, 12), torch.rand(1, 3, 12, 12)
    assert compare(image, other, border=4)["psnr_rgb"] == float(psnr(image, other))
    assert compare(image[:, :1, :9], other[:, :1, :9], border=4).keys() == {"psnr_rgb"}


def _hr(path) -> torch.Tensor:
    return from_uint8(read_image(path)).unsqueeze(0)
