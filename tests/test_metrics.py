"""PSNR and SSIM against scikit-image, luma against MATLAB's constants."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from invertible_rescaling import psnr, ssim
from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.metrics import luma
from tests.strategies import DTYPES, seeds, uniform
from tests.tolerances import METRICS


def _pair(height: int, width: int, seed: int, noise: float, channels: int = 3, batch: int = 2, dtype=None):
    x = uniform(batch, channels, height, width, seed=seed, dtype=torch.float64)
    y = (x + noise * (uniform(*x.shape, seed=seed + 1).double() - 0.5)).clamp(0, 1)
    return (x, y) if dtype is None else (x.to(dtype), y.to(dtype))


def _array(image: torch.Tensor, border: int) -> np.ndarray:
    image = image.permute(1, 2, 0).double().numpy()
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def _skimage_ssim(x: np.ndarray, y: np.ndarray) -> float:
    return structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1
    )


sizes = {"height": st.integers(19, 40), "width": st.integers(19, 40)}
conditions = {"border": st.integers(0, 4), "seed": seeds, "noise": st.sampled_from((0.01, 0.2, 1.0))}


@given(**sizes, **conditions, channels=st.integers(1, 4), dtype=st.sampled_from(DTYPES))
def test_rgb_figures_are_scikit_images(height, width, border, seed, noise, channels, dtype) -> None:
    x, y = _pair(height, width, seed, noise, channels, dtype=dtype)
    for i in range(2):
        a, b = _array(x[i], border), _array(y[i], border)
        assert float(psnr(y, x, border=border)[i]) == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1), abs=METRICS
        )
        assert float(ssim(y, x, border=border)[i]) == pytest.approx(_skimage_ssim(a, b), abs=METRICS)


@given(**sizes, **conditions)
def test_luma_figures_are_scikit_images(height, width, border, seed, noise) -> None:
    x, y = _pair(height, width, seed, noise)
    for i in range(2):
        a, b = (rgb2ycbcr(_array(image[i], border))[..., :1] / 255 for image in (x, y))
        assert float(psnr(y, x, space="y", border=border)[i]) == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1), abs=METRICS
        )
        assert float(ssim(y, x, space="y", border=border)[i]) == pytest.approx(
            _skimage_ssim(a, b), abs=METRICS
        )


@pytest.mark.parametrize(
    ("rgb", "y"),
    [
        ((0, 0, 0), 16),
        ((1, 1, 1), 235),
        ((1, 0, 0), 16 + 65.481),
        ((0, 1, 0), 16 + 128.553),
        ((0, 0, 1), 16 + 24.966),
    ],
)
def test_luma_is_matlabs(rgb: tuple[int, int, int], y: float) -> None:
    image = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)
    assert float(luma(image)) * 255 == pytest.approx(y, abs=1e-9)


def test_psnr_by_hand() -> None:
    x = torch.zeros(2, 3, 4, 4)
    y = torch.stack((torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 1.0)))
    assert psnr(y, x).tolist() == pytest.approx([20.0, 0.0], abs=1e-5)


def test_equal_images_are_as_good_as_can_be() -> None:
    x = uniform(2, 3, 16, 16)
    assert psnr(x, x).tolist() == [math.inf] * 2
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 2)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_each_image_has_its_own_figure_in_float64(metric) -> None:
    x, y = _pair(16, 16, seed=0, noise=0.5, dtype=torch.float32)
    figures = metric(x, y)
    assert (figures.shape, figures.dtype) == ((2,), torch.float64)
    for i in range(2):
        assert float(metric(x[i : i + 1], y[i : i + 1])) == pytest.approx(float(figures[i]), abs=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_the_border_is_cropped_on_every_side(metric) -> None:
    x, y = _pair(24, 24, seed=0, noise=0.5)
    spoilt = y.clone()
    spoilt[..., :4, :], spoilt[..., -4:, :], spoilt[..., :, :4], spoilt[..., :, -4:] = 0, 1, 0, 1
    assert torch.equal(metric(spoilt, x, border=4), metric(y, x, border=4))
    assert (metric(spoilt, x, border=3) < metric(y, x, border=3)).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bad_input_is_named(metric) -> None:
    x = uniform(1, 3, 16, 16)
    with pytest.raises(ShapeError, match=r"\(1, 3, 16, 16\) and \(1, 3, 16, 15\)"):
        metric(x, x[..., :15])
    with pytest.raises(ShapeError, match=r"\(3, 16, 16\)"):
        metric(x[0], x[0])
    with pytest.raises(DtypeError, match="uint8"):
        metric((x * 255).to(torch.uint8), x)
    with pytest.raises(ConfigError, match="'rgb' or 'y', got 'lab'"):
        metric(x, x, space="lab")
    with pytest.raises(ShapeError, match=r"RGB images.*\(1, 1, 16, 16\)"):
        metric(x[:, :1], x[:, :1], space="y")
    for border in (-1, 1.5):
        with pytest.raises(ConfigError, match=f"border must be .* got {border}"):
            metric(x, x, border=border)
    with pytest.raises(ShapeError, match="border of 8 is smaller than"):
        metric(x, x, border=8)


def test_ssim_needs_room_for_its_window() -> None:
    assert ssim(uniform(1, 3, 11, 11), uniform(1, 3, 11, 11)).shape == (1,)
    with pytest.raises(ShapeError, match="smaller than 11x11"):
        ssim(uniform(1, 3, 10, 30), uniform(1, 3, 10, 30))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_the_memory_format_does_not_matter(metric) -> None:
    x, y = torch.rand(2, 3, 20, 24), torch.rand(2, 3, 20, 24)
    other = [t.contiguous(memory_format=torch.channels_last) for t in (x, y)]
    assert torch.equal(metric(x, y, border=2), metric(*other, border=2))
    assert torch.equal(metric(x, y), metric(x.transpose(2, 3).contiguous().transpose(2, 3), y))
