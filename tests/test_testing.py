"""The checkers themselves: each must fail on the layer that breaks its rule, and name the rule."""

import pytest
import torch
from torch import Tensor, nn

from invertible_rescaling import CRDB, AffineCoupling, HaarDownsampling, InvertibleModule, InvertibleRescaler
from invertible_rescaling.errors import ConfigError, InvertibilityError
from invertible_rescaling.testing import check_invertible, check_log_det, randomize
from tests.strategies import uniform


class Double(InvertibleModule):
    """y = 2x, and right in every respect; the others break one rule each."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def inverse(self, y: Tensor) -> Tensor:
        return y / 2

    def forward_with_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward(x), self.log_det(x)

    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(y), -self.log_det(y)

    def log_det(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), x[0].numel()) * torch.log(x.new_tensor(2.0))


class WrongInverse(Double):
    def inverse(self, y: Tensor) -> Tensor:
        return y / 2 + 1e-3


class SlightlyWrongInverse(Double):
    def inverse(self, y: Tensor) -> Tensor:
        return y / 2 * (1 + 1e-9)


class InverseOfTheRangeAlone(Double):
    """Undoes what forward made, and nothing else: wrong only from inverse to forward."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def inverse(self, y: Tensor) -> Tensor:
        return (y / 2).clamp(max=1.0)


class InverseThatHalvesItsCallersTensor(Double):
    def inverse(self, y: Tensor) -> Tensor:
        return y.div_(2)


class ForwardThatDoublesItsCallersTensor(Double):
    def forward(self, x: Tensor) -> Tensor:
        x *= 2
        return x.clone()


class Random(Double):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + 1e-9 * torch.rand_like(x)


class Nan(Double):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x / 0


class NanBackwards(Double):
    def inverse(self, y: Tensor) -> Tensor:
        return (y - y) / (y - y)


class Half(Double):
    def forward(self, x: Tensor) -> Tensor:
        return (2 * x).half()


class Single(Double):
    def inverse(self, y: Tensor) -> Tensor:
        return (y / 2).float()


class Lossy(Double):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x[..., :-1]


class OddRowDropped(Double):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.flatten(1)

    def inverse(self, y: Tensor) -> Tensor:
        return (y / 2).view(len(y), 1, 1, -1)


class Rounding(Double):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(2 * x * 255) / 255


class OtherOutputWithLogDet(Double):
    def forward_with_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 3 * x, self.log_det(x)


class OtherInverseWithLogDet(Double):
    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y / 3, -self.log_det(y)


class OneLogDetForAll(Double):
    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x).sum()


class NanLogDet(Double):
    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x) / 0


class LogDetThatHalvesItsCallersTensor(Double):
    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y.div_(2), -self.log_det(y)


BROKEN = {
    WrongInverse: "round trip is off by 0.00",
    SlightlyWrongInverse: "round trip is off by",
    InverseOfTheRangeAlone: "round trip is off by .*forward-inverse 0, inverse-forward 0.01",
    InverseThatHalvesItsCallersTensor: "inverse modified its input",
    ForwardThatDoublesItsCallersTensor: "forward modified its input",
    Random: "forward is not deterministic",
    Nan: "forward returned values that are not finite",
    NanBackwards: "inverse returned values that are not finite",
    Half: "forward turned torch.float64 into torch.float16",
    Single: "inverse turned torch.float64 into torch.float32",
    Lossy: "keeps the number of values",
    OddRowDropped: r"inverse\(forward\(x\)\) has shape",
    Rounding: "round trip is off by",
    OtherOutputWithLogDet: "forward_with_log_det returns another tensor",
    OtherInverseWithLogDet: "inverse_with_log_det returns another tensor",
    OneLogDetForAll: r"log-det of shape \(2,\)",
    NanLogDet: "finite log-det",
    LogDetThatHalvesItsCallersTensor: "inverse_with_log_det modified its input",
}


def _x() -> Tensor:
    x = uniform(2, 1, 2, 3, dtype=torch.float64)
    x[0, 0, 0, 0] = 1.0  # the bound of InverseOfTheRangeAlone
    return x


def test_the_layer_that_the_others_break_is_sound() -> None:
    report = check_invertible(Double(), _x())
    assert report.forward_error == report.inverse_error == report.amplification == 0
    assert report.tolerance == 1e-12
    assert check_log_det(Double(), _x()) < 1e-12


@pytest.mark.parametrize("layer", BROKEN, ids=lambda layer: layer.__name__)
def test_check_invertible_names_the_broken_rule(layer: type[Double]) -> None:
    with pytest.raises(InvertibilityError, match=BROKEN[layer]):
        check_invertible(layer(), _x())


class WrongSign(Double):
    def log_det(self, x: Tensor) -> Tensor:
        return -super().log_det(x)


class WrongFactor(Double):
    def log_det(self, x: Tensor) -> Tensor:
        return super().log_det(x) * (1 + 1e-6)


class SameSignBackwards(Double):
    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(y), self.log_det(y)


class MeanOverTheBatch(Double):
    """Right for one sample and for equal ones: the scale depends on the sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)

    def inverse(self, y: Tensor) -> Tensor:
        return torch.cat(
            (y[:, :, :1, :1], (y / y[:, :, :1, :1].exp()).flatten(1)[:, 1:].view(len(y), 1, 1, -1)), -1
        )

    def scale(self, x: Tensor) -> Tensor:
        return torch.cat(
            (torch.ones_like(x[..., :1]), x[..., :1].exp().expand(-1, -1, -1, x.shape[-1] - 1)), -1
        )

    def log_det(self, x: Tensor) -> Tensor:
        return self.scale(x).log().sum((1, 2, 3)).mean().expand(len(x))


class NoLogDet(Double):
    def log_det(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))


class NanLogDetOnly(Double):
    def log_det(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), torch.nan)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (WrongSign, "forward_with_log_det"),
        (WrongFactor, "forward_with_log_det"),
        (SameSignBackwards, "inverse_with_log_det"),
        (NoLogDet, "forward_with_log_det"),
        (NanLogDetOnly, "forward_with_log_det"),
    ],
)
def test_check_log_det_names_the_wrong_figure(layer: type[Double], named: str) -> None:
    with pytest.raises(InvertibilityError, match=rf"{named} returned .* for sample 0, the Jacobian gives"):
        check_log_det(layer(), _x())


def test_check_log_det_looks_at_every_sample() -> None:
    x = uniform(2, 1, 1, 4, dtype=torch.float64)
    check_log_det(MeanOverTheBatch(), x[:1])
    with pytest.raises(InvertibilityError, match="for sample 0"):
        check_log_det(MeanOverTheBatch(), x)


def test_a_failed_check_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError):
        check_invertible(WrongInverse(), _x())


def test_the_tolerance_is_per_dtype_and_can_be_given() -> None:
    x = _x()
    assert check_invertible(SlightlyWrongInverse(), x.float()).tolerance == 1e-4
    report = check_invertible(SlightlyWrongInverse(), x, tolerance=1e-8)
    assert 1e-10 < report.forward_error < 1e-8
    assert report.amplification == pytest.approx(
        max(report.forward_error, report.inverse_error) / torch.finfo(torch.float64).eps
    )
    with pytest.raises(InvertibilityError):
        check_invertible(WrongInverse(), x, tolerance=4e-4)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.uint8, torch.int64])
def test_other_dtypes_cannot_be_checked(dtype: torch.dtype) -> None:
    for check in (check_invertible, check_log_det):
        with pytest.raises(ConfigError, match=str(dtype)):
            check(Double(), torch.ones(1, 1, 2, 2).to(dtype))


def test_the_amplification_grows_with_the_gain() -> None:
    figures = []
    for gain in (0.5, 1.0, 2.0):
        model = randomize(InvertibleRescaler(4, blocks=4, subnet={"name": "dense", "growth": 8}), gain)
        figures.append(check_invertible(model, uniform(1, 3, 16, 16), tolerance=float("inf")).amplification)
    assert figures[0] < figures[1] < figures[2]


def test_a_layer_without_log_dets_can_be_checked_for_the_rest() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -x

        def inverse(self, y: Tensor) -> Tensor:
            return -y

    assert check_invertible(Plain(), _x()).forward_error == 0


def test_checking_leaves_the_input_and_the_gradients_alone() -> None:
    layer, x = randomize(AffineCoupling(4, 1, CRDB).double()), uniform(2, 4, 2, 2, dtype=torch.float64)
    before = x.clone()
    check_invertible(layer, x)
    check_log_det(layer, x)
    assert torch.equal(x, before)
    assert all(p.grad is None for p in layer.parameters())


def test_randomize_fills_every_parameter_reproducibly() -> None:
    first, second, other = (randomize(AffineCoupling(12, 3, CRDB), seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert torch.count_nonzero(a) == a.numel()


def test_randomize_draws_the_same_in_every_dtype() -> None:
    single, double = randomize(nn.Conv2d(3, 4, 3)), randomize(nn.Conv2d(3, 4, 3).double())
    assert torch.equal(single.weight, double.weight.float())


def test_randomize_scales_by_gain_and_fan_in() -> None:
    conv = randomize(nn.Conv2d(64, 64, 3), gain=0.7).requires_grad_(False)
    assert float(conv.weight.std()) == pytest.approx(0.7 / (64 * 9) ** 0.5, rel=0.02)
    assert float(conv.bias.std()) == pytest.approx(0.07, rel=0.3)


def test_randomize_leaves_layers_without_parameters_and_the_global_generator_alone() -> None:
    haar, conv = HaarDownsampling(3), nn.Conv2d(1, 1, 1)
    before = torch.get_rng_state()
    assert randomize(haar) is haar
    randomize(conv)
    assert torch.equal(torch.get_rng_state(), before)
