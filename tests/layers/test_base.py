"""The rules that every invertible layer keeps, whatever it computes."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from invertible_rescaling import (
    AdditiveCoupling,
    AffineCoupling,
    HaarDownsampling,
    Inverse,
    InvertibleModule,
    InvertibleSequential,
)
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.testing import check_invertible, check_log_det, randomize
from tests.strategies import SUBNETS, SmallConv, largest_difference, uniform
from tests.tolerances import LOG_DET, ROUND_TRIP, SAME


def _stack() -> InvertibleSequential:
    return InvertibleSequential(
        HaarDownsampling(1), AffineCoupling(4, 1, SUBNETS["crdb"]), AdditiveCoupling(4, 3, SmallConv)
    )


LAYERS: dict[str, tuple[Callable[[], InvertibleModule], tuple[int, ...]]] = {
    "haar": (lambda: HaarDownsampling(3), (3, 3, 6, 4)),
    **{
        f"affine-{name}": (lambda subnet=subnet: AffineCoupling(5, 2, subnet), (3, 5, 6, 4))
        for name, subnet in SUBNETS.items()
    },
    "additive": (lambda: AdditiveCoupling(5, 2, SUBNETS["dense"]), (3, 5, 6, 4)),
    "sequential": (_stack, (3, 1, 6, 4)),
    "inverse": (lambda: Inverse(_stack()), (3, 4, 3, 2)),
}


@pytest.fixture(params=LAYERS)
def case(request: pytest.FixtureRequest) -> tuple[InvertibleModule, torch.Tensor]:
    make, shape = LAYERS[request.param]
    return randomize(make(), seed=3), uniform(*shape, seed=4)


def _all_outputs(layer: InvertibleModule, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        y = layer(x)
        return [y, layer.inverse(y), *layer.forward_with_log_det(x), *layer.inverse_with_log_det(y)]


def _assert_identical(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left, right)


def test_round_trip_and_log_det_hold(case: tuple[InvertibleModule, torch.Tensor]) -> None:
    layer, x = case
    check_invertible(layer, x, tolerance=ROUND_TRIP[x.dtype])
    check_log_det(layer.double(), x.double(), tolerance=LOG_DET[torch.float64])


def test_inputs_are_never_modified(case: tuple[InvertibleModule, torch.Tensor]) -> None:
    layer, x = case
    y = layer(x).detach()
    for function, given in (
        (layer.forward, x),
        (layer.forward_with_log_det, x),
        (layer.inverse, y),
        (layer.inverse_with_log_det, y),
    ):
        before = given.clone()
        function(given)
        assert torch.equal(given, before)


def test_two_calls_agree_to_the_last_bit(case: tuple[InvertibleModule, torch.Tensor]) -> None:
    _assert_identical(_all_outputs(*case), _all_outputs(*case))


def test_log_dets_are_one_per_sample_in_the_states_dtype(case: tuple[InvertibleModule, torch.Tensor]) -> None:
    layer, x = case
    for dtype in (torch.float32, torch.float64):
        _, _, y, forward, _, inverse = _all_outputs(layer.to(dtype), x.to(dtype))
        assert forward.shape == inverse.shape == (x.shape[0],)
        assert y.dtype == forward.dtype == inverse.dtype == dtype


def test_samples_of_a_batch_do_not_meet(case: tuple[InvertibleModule, torch.Tensor]) -> None:
    layer, x = case
    whole = _all_outputs(layer, x)
    for i in range(len(x)):
        for one, all_of_them in zip(_all_outputs(layer, x[i : i + 1]), whole, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i], rtol=SAME[x.dtype], atol=SAME[x.dtype])


def test_memory_layout_does_not_matter(case: tuple[InvertibleModule, torch.Tensor]) -> None:
    layer, x = case
    expected = _all_outputs(layer, x)
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    padded = torch.nn.functional.pad(x, (1, 2, 1, 1))[..., 1:-1, 1:-2]
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    assert not padded.is_contiguous()
    for other in (strided, padded, channels_last):
        for got, wanted in zip(_all_outputs(layer, other), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=SAME[x.dtype], atol=SAME[x.dtype])


def test_copies_compute_the_same(case: tuple[InvertibleModule, torch.Tensor]) -> None:
    layer, x = case
    expected = _all_outputs(layer, x)
    _assert_identical(_all_outputs(copy.deepcopy(layer), x), expected)


@pytest.mark.parametrize("name", ["haar", "affine-own", "affine-crdb", "additive", "inverse"])
def test_a_pickled_layer_computes_the_same(name: str) -> None:
    make, shape = LAYERS[name]
    layer, x = randomize(make(), seed=3), uniform(*shape, seed=4)
    _assert_identical(_all_outputs(pickle.loads(pickle.dumps(layer)), x), _all_outputs(layer, x))


@pytest.mark.parametrize("name", LAYERS)
def test_the_state_dict_holds_all_that_matters(name: str) -> None:
    make, shape = LAYERS[name]
    trained, fresh, x = randomize(make(), seed=3), make(), uniform(*shape, seed=4)
    fresh.load_state_dict(trained.state_dict())
    _assert_identical(_all_outputs(fresh, x), _all_outputs(trained, x))


def test_filters_are_no_parameters() -> None:
    haar = HaarDownsampling(3)
    assert list(haar.parameters()) == []
    assert haar.state_dict() == {}


def test_inverse_swaps_the_two_directions() -> None:
    stack, y = randomize(_stack()), uniform(2, 4, 3, 2)
    turned = Inverse(stack)
    assert torch.equal(turned(y), stack.inverse(y))
    assert torch.equal(turned.inverse(stack.inverse(y)), stack(stack.inverse(y)))
    assert torch.equal(turned.forward_with_log_det(y)[1], stack.inverse_with_log_det(y)[1])
    assert turned.module is stack


def test_sequential_is_its_layers_one_after_the_other() -> None:
    stack, x = randomize(_stack()), uniform(2, 1, 6, 4)
    y, total = x, torch.zeros(2)
    for layer in stack:
        y, log_det = layer.forward_with_log_det(y)
        total = total + log_det
    assert torch.equal(stack(x), y)
    assert largest_difference(stack.forward_with_log_det(x)[1], total) == 0
    assert len(stack) == 3
    assert stack[0] is next(iter(stack))


@pytest.mark.parametrize("modules", [(), (nn.Conv2d(3, 3, 1),), (HaarDownsampling(3), nn.Identity())])
def test_sequential_refuses_what_has_no_inverse(modules: tuple[nn.Module, ...]) -> None:
    with pytest.raises(ConfigError, match="InvertibleSequential"):
        InvertibleSequential(*modules)


def test_a_layer_without_an_inverse_cannot_be_made() -> None:
    class HalfALayer(InvertibleModule):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(TypeError, match="abstract"):
        HalfALayer()
