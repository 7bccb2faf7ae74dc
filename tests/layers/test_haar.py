"""The Haar step, against the formula written out."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from invertible_rescaling import HaarDownsampling
from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.testing import check_invertible, check_log_det
from tests.strategies import DTYPES, largest_difference, seeds, uniform
from tests.tolerances import LOG_DET, ROUND_TRIP


def test_one_block_by_hand() -> None:
    a, b, c, d = 1.0, 2.0, 4.0, 16.0
    y = HaarDownsampling(1)(torch.tensor([[[[a, b], [c, d]]]]))
    assert y.flatten().tolist() == [
        (a + b + c + d) / 4,
        (a - b + c - d) / 4,
        (a + b - c - d) / 4,
        (a - b - c + d) / 4,
    ]
    assert HaarDownsampling(1).inverse(y).flatten().tolist() == [a, b, c, d]


def test_channels_are_ordered_by_band() -> None:
    first, second = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[0.0, 8.0], [0.0, 8.0]])
    y = HaarDownsampling(2)(torch.stack((first, second))[None])
    #                            LL        horizontal   vertical   diagonal: each band has both channels
    assert y.flatten().tolist() == [4.0, 4.0, -1.0, -4.0, -2.0, 0.0, 0.0, 0.0]


def test_each_block_is_transformed_on_its_own() -> None:
    x = uniform(2, 3, 8, 6, dtype=torch.float64)
    y = HaarDownsampling(3)(x)
    for i in range(4):
        for j in range(3):
            a, b = x[:, :, 2 * i, 2 * j], x[:, :, 2 * i, 2 * j + 1]
            c, d = x[:, :, 2 * i + 1, 2 * j], x[:, :, 2 * i + 1, 2 * j + 1]
            bands = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
            assert largest_difference(y[:, :, i, j], torch.cat(bands, dim=1) / 4) < 1e-15


@given(size=st.tuples(*[st.integers(1, 5)] * 4), seed=seeds, dtype=st.sampled_from(DTYPES))
def test_round_trip(size: tuple[int, ...], seed: int, dtype: torch.dtype) -> None:
    batch, channels, h, w = size
    x = uniform(batch, channels, 2 * h, 2 * w, seed=seed, dtype=dtype)
    report = check_invertible(HaarDownsampling(channels), x, tolerance=ROUND_TRIP[dtype])
    assert report.amplification <= 8  # sums of four: no more than a few roundings


@given(size=st.tuples(*[st.integers(1, 3)] * 4), seed=seeds)
def test_log_det(size: tuple[int, ...], seed: int) -> None:
    batch, channels, h, w = size
    haar, x = HaarDownsampling(channels), uniform(batch, channels, 2 * h, 2 * w, seed=seed).double()
    check_log_det(haar, x, tolerance=LOG_DET[x.dtype])
    y, log_det = haar.forward_with_log_det(x)
    assert log_det.tolist() == pytest.approx([4 * channels * h * w / 4 * math.log(1 / 16)] * batch)
    assert torch.equal(haar.inverse_with_log_det(y)[1], -log_det)


@pytest.mark.parametrize(("height", "width"), [(5, 4), (4, 5), (1, 2), (3, 3)])
def test_odd_sides_are_refused_not_dropped(height: int, width: int) -> None:
    with pytest.raises(ShapeError, match=rf"even height and width.*\(1, 3, {height}, {width}\)"):
        HaarDownsampling(3)(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(3, 4, 4), ShapeError, r"4-d tensor.*\(3, 4, 4\)"),
        (torch.zeros(1, 4, 4, 4), ShapeError, r"3 channels.*\(1, 4, 4, 4\)"),
        (torch.zeros(1, 3, 0, 4), ShapeError, r"at least 1.*\(1, 3, 0, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), DtypeError, "torch.uint8"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.half), DtypeError, "torch.float16"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16), DtypeError, "torch.bfloat16"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.complex64), DtypeError, "torch.complex64"),
        ([[0.0]], DtypeError, "list"),
    ],
)
def test_bad_input_is_named(bad: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HaarDownsampling(3)(bad)


def test_inverse_checks_its_channels() -> None:
    with pytest.raises(ShapeError, match=r"HaarDownsampling.inverse takes 12 channels.*got 3"):
        HaarDownsampling(3).inverse(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("channels", [0, -1, 1.5, "3", None])
def test_channels_must_be_a_positive_integer(channels: object) -> None:
    with pytest.raises(ConfigError, match="positive"):
        HaarDownsampling(channels)


def test_both_directions_are_vectorised() -> None:
    haar, x = HaarDownsampling(3), uniform(4, 3, 6, 8)
    y = torch.func.vmap(lambda one: haar(one[None])[0])(x)
    assert torch.equal(y, haar(x))
    assert torch.equal(torch.func.vmap(lambda one: haar.inverse(one[None])[0])(y), haar.inverse(y))
