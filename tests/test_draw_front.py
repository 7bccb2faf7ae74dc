"""The picture of PSNR against multiply-adds."""

import pytest
import torch
from PIL import Image

import draw_front
from draw_front import Point, front, points
from invertible_rescaling import list_models, srcnn_x4
from invertible_rescaling.images import write_image
from invertible_rescaling.weights import weights_of


def test_every_model_with_weights_is_a_point_with_its_own_figures() -> None:
    found = {point.model: point for point in points("Set5")}
    assert sorted(found) == list_models(pretrained=True)
    linear, weights = found["linear_x4"], weights_of("linear_x4").DEFAULT
    assert (linear.scale, linear.psnr) == (4, weights.metrics["Set5"]["psnr_rgb"])
    # phi and rho and eta of two couplings a stage: 9 taps, at a quarter and a sixteenth of the pixels.
    by_hand = 9 * 2 * (3 * 9 * 3 / 4 + 3 * 45 * 3 / 16)
    assert linear.multiply_adds == pytest.approx(2 * by_hand)
    convolutions = [m for m in srcnn_x4().modules() if isinstance(m, torch.nn.Conv2d)]
    assert found["srcnn_x4"].multiply_adds == pytest.approx(sum(c.weight.numel() for c in convolutions))


def test_the_front_leaves_out_what_costs_more_for_less() -> None:
    cheap, worse, better, equal = (
        Point(*p) for p in (("a", 2, 1, 30.0), ("b", 2, 2, 29.0), ("c", 2, 3, 31.0), ("d", 2, 3, 30.5))
    )
    assert front([better, equal, worse, cheap]) == [cheap, better]


def test_a_panel_for_each_scale(tmp_path, capsys) -> None:
    folder = tmp_path / "Set5"
    folder.mkdir()
    write_image(folder / "a.png", torch.rand(3, 64, 64))
    out = tmp_path / "deep" / "front.png"
    assert draw_front.main([str(folder), "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.width > 3 * picture.height


@pytest.mark.parametrize(
    ("folder", "message"), [("Set15", "no weights state figures on 'Set15'"), ("Set5", "Set5")]
)
def test_a_benchmark_that_is_not_there_is_one_line(tmp_path, capsys, folder, message) -> None:
    assert draw_front.main([str(tmp_path / folder), "--out", str(tmp_path / "front.png")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("draw_front.py: ")
    assert message in err
    assert err.count("\n") == 1
