"""The Haar functions, the quantiser and bicubic resizing."""

import pytest
import torch
from hypothesis import given, strategies as st

from invertible_rescaling.errors import ValueRangeError
from invertible_rescaling.functional import (
    _resize_by_matrices,
    bicubic_resize,
    haar_decompose,
    haar_reconstruct,
    pad_to_multiple,
    quantize,
)
from tests.strategies import DTYPES, largest_difference, seeds, uniform


@given(size=st.tuples(*[st.integers(1, 4)] * 4), seed=seeds)
def test_haar_reconstruct_undoes_haar_decompose(size: tuple[int, ...], seed: int) -> None:
    batch, channels, h, w = size
    x = uniform(batch, channels, 2 * h, 2 * w, seed=seed, dtype=torch.float64)
    assert largest_difference(haar_reconstruct(haar_decompose(x)), x) < 1e-15
    y = uniform(batch, 4 * channels, h, w, seed=seed, dtype=torch.float64)
    assert largest_difference(haar_decompose(haar_reconstruct(y)), y) < 1e-15


def test_haar_keeps_channels_last() -> None:
    x = uniform(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    y = haar_decompose(x)
    back = haar_reconstruct(y.contiguous(memory_format=torch.channels_last))
    assert back.is_contiguous(memory_format=torch.channels_last)


def test_haar_is_exact_on_8_bit_values() -> None:
    values = torch.arange(256, dtype=torch.float32).view(1, 1, 16, 16)
    assert torch.equal(haar_reconstruct(haar_decompose(values)), values)


@given(bits=st.integers(1, 16), seed=seeds, dtype=st.sampled_from(DTYPES))
def test_quantize_returns_exactly_the_values_a_file_stores(bits: int, seed: int, dtype: torch.dtype) -> None:
    x = 3 * uniform(2, 50, seed=seed, dtype=dtype) - 1
    before = x.clone()
    q, steps = quantize(x, bits), 2**bits - 1
    stored = torch.arange(steps + 1, dtype=dtype) / steps
    assert torch.isin(q, stored).all()
    assert largest_difference(q, x.clamp(0, 1)) <= 0.5 / steps * (1 + 1e-4)
    assert torch.equal(quantize(q, bits), q)
    assert torch.equal(x, before)


def test_quantize_maps_every_8_bit_value_to_itself() -> None:
    stored = torch.arange(256, dtype=torch.float32) / 255
    assert torch.equal(quantize(stored), stored)
    assert torch.equal(quantize(stored.clone().requires_grad_()), stored)


def test_the_gradient_of_quantize_is_straight_through() -> None:
    x = torch.tensor([-3.0, 0.0, 0.3, 0.5, 1.0, 7.0], requires_grad=True)
    weights = torch.arange(1.0, 7.0)
    (quantize(x) * weights).sum().backward()
    assert torch.equal(x.grad, weights)


@pytest.mark.parametrize("bits", [0, -1, 17])
def test_quantize_refuses_other_depths(bits: int) -> None:
    with pytest.raises(ValueRangeError, match=f"1 to 16 bits, got {bits}"):
        quantize(torch.zeros(1), bits)


def _keys(t: torch.Tensor, a: float) -> torch.Tensor:
    t = t.abs()
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def test_shrinking_is_matlabs_widened_keys_kernel() -> None:
    row, scale = uniform(64, dtype=torch.float64), 4
    shrunk = bicubic_resize(row.view(1, 1, 1, 64), (1, 16)).flatten()
    for i in range(4, 12):  # away from the borders, where conventions differ
        weights = _keys((torch.arange(64) - ((i + 0.5) * scale - 0.5)) / scale, a=-0.5)
        assert float(shrunk[i]) == pytest.approx(float((weights / weights.sum() * row).sum()), abs=1e-12)


def test_enlarging_without_antialias_is_the_sharper_kernel() -> None:
    row, scale = uniform(16, dtype=torch.float64), 4
    enlarged = bicubic_resize(row.view(1, 1, 1, 16), (1, 64), antialias=False).flatten()
    for i in range(16, 48):
        weights = _keys(torch.arange(16) - ((i + 0.5) / scale - 0.5), a=-0.75)
        assert float(enlarged[i]) == pytest.approx(float((weights * row).sum()), abs=1e-12)


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    antialias=st.booleans(),
)
def test_resizing_keeps_constants(size, new, antialias: bool) -> None:
    resized = bicubic_resize(torch.full((1, 2, *size), 0.3, dtype=torch.float64), new, antialias=antialias)
    assert resized.shape == (1, 2, *new)
    assert largest_difference(resized, torch.tensor(0.3, dtype=torch.float64)) < 1e-12


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(20, 28), (5, 7), (9, 3), (1, 1)])
def test_two_matrices_resize_as_interpolation_does(size: tuple[int, int], antialias: bool) -> None:
    x = uniform(2, 3, 10, 14, dtype=torch.float64).requires_grad_()
    found, expected = _resize_by_matrices(x, size, antialias), bicubic_resize(x, size, antialias=antialias)
    assert found.shape == expected.shape
    assert largest_difference(found, expected) < 1e-14
    weights = uniform(*found.shape, seed=1, dtype=torch.float64)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    assert largest_difference(*gradients) < 1e-13


@pytest.mark.parametrize(("size", "padded"), [((8, 12), (8, 12)), ((5, 12), (8, 12)), ((1, 9), (4, 12))])
def test_padding_repeats_the_last_row_and_column(size: tuple[int, int], padded: tuple[int, int]) -> None:
    x = uniform(2, 3, *size)
    found = pad_to_multiple(x, 4)
    assert found.shape == (2, 3, *padded)
    rows = torch.arange(padded[0]).clamp(max=size[0] - 1)
    columns = torch.arange(padded[1]).clamp(max=size[1] - 1)
    assert torch.equal(found, x[:, :, rows][..., columns])
    assert (found is x) == (size == padded)
