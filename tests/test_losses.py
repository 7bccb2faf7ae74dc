"""The training objective, against values worked out by hand."""

import math

import pytest
import torch

from invertible_rescaling import InvertibleRescaler, RescalingLoss, iirn_x4, irn_x4
from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.testing import randomize
from tests.strategies import largest_difference, uniform

BLOCK = (0.2, 0.4, 0.6, 0.8)


@pytest.fixture
def haar_alone() -> InvertibleRescaler:
    return InvertibleRescaler(2, channels=1, blocks=0, latent="zero")


def _one_block() -> torch.Tensor:
    return torch.tensor(BLOCK, dtype=torch.float64).view(1, 1, 2, 2)


def test_the_three_terms_by_hand(haar_alone: InvertibleRescaler) -> None:
    reference = torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64)
    terms = RescalingLoss(epsilon=0.01)(haar_alone, _one_block(), reference)
    stored = 128 / 255  # LR is the mean, 0.5, and 127.5 / 255 rounds to even
    distances = [math.sqrt((value - stored) ** 2 + 0.01**2) for value in BLOCK]
    assert float(terms.reconstruction) == pytest.approx(sum(distances) / 4, abs=1e-12)
    assert float(terms.guide) == pytest.approx((0.5 - 0.4) ** 2, abs=1e-12)
    assert float(terms.latent) == pytest.approx((0.1**2 + 0.2**2 + 0) / 3, abs=1e-12)
    parts = terms.reconstruction + terms.guide + terms.latent
    assert float(terms.total) == pytest.approx(float(parts), abs=1e-15)


def test_the_weights_are_honoured(haar_alone: InvertibleRescaler) -> None:
    plain = RescalingLoss()(haar_alone, _one_block())
    terms = RescalingLoss(reconstruction=2.0, guide=0.0, latent=0.25)(haar_alone, _one_block())
    for name in ("reconstruction", "guide", "latent"):
        assert float(getattr(terms, name)) == float(getattr(plain, name))
    assert float(terms.total) == pytest.approx(2 * float(plain.reconstruction) + 0.25 * float(plain.latent))


def test_the_guide_is_bicubic_with_antialias() -> None:
    model, hr = InvertibleRescaler(4, blocks=0), uniform(2, 3, 16, 24, dtype=torch.float64)
    small = bicubic_resize(hr, (4, 6))
    expected = (torch.nn.functional.avg_pool2d(hr, 4) - small).square().mean()
    loss = RescalingLoss()
    assert float(loss(model, hr).guide) == pytest.approx(float(expected), abs=1e-12)
    assert float(loss(model, hr, small).guide) == float(loss(model, hr).guide)


def test_colour_is_weighed_within_the_guide() -> None:
    """A grey error weighs as before, a coloured one as often as asked for."""
    model, hr = InvertibleRescaler(2, blocks=0), torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    for error, weight in (((0.1, 0.1, 0.1), 1.0), ((0.1, -0.1, 0.0), 5.0)):
        small = 0.5 + torch.tensor(error, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 2, 2)
        plain, weighed = (
            float(RescalingLoss(chroma=chroma)(model, hr, small).guide) for chroma in (1.0, 5.0)
        )
        assert weighed == pytest.approx(weight * plain, rel=1e-12)


def test_the_prior_is_the_models_own_latent_of_the_stored_image() -> None:
    model = randomize(InvertibleRescaler(4, blocks=1, subnet={"name": "crdb", "growth": 4}).double())
    hr = uniform(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        lr, z = model(hr)
        stored = quantize(lr)
        prior = model.latent(stored)
        terms = RescalingLoss(epsilon=1e-6)(model, hr)
        sr = model.inverse(stored, prior)
    assert float(terms.latent) == pytest.approx(float((z - prior).square().mean()), abs=1e-12)
    assert float(terms.reconstruction) == pytest.approx(float((hr - sr).abs().mean()), abs=2e-6)


def test_means_do_not_depend_on_the_patch_or_the_batch(haar_alone: InvertibleRescaler) -> None:
    loss, hr = RescalingLoss(guide=0), _one_block()
    tiled = hr.repeat(3, 1, 4, 5)
    assert largest_difference(loss(haar_alone, tiled).total, loss(haar_alone, hr).total) < 1e-12


@pytest.mark.parametrize(("make", "latent"), [(iirn_x4, "wavelet"), (irn_x4, "gaussian"), (iirn_x4, "zero")])
def test_finite_gradients_reach_every_parameter(make, latent: str) -> None:
    model = randomize(make(blocks=(1, 1), latent=latent))
    RescalingLoss()(model, uniform(2, 3, 16, 16)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_pass_the_rounding_of_lr() -> None:
    """Without a straight-through gradient, reconstruction alone could not teach phi, which makes LR."""
    model = randomize(InvertibleRescaler(2, blocks=1, subnet={"name": "dense", "growth": 4}, latent="zero"))
    lr_before_rounding = []
    model.flow.register_forward_hook(
        lambda _m, _i, out: (out.retain_grad(), lr_before_rounding.append(out))[0]
    )
    RescalingLoss(guide=0, latent=0)(model, uniform(1, 3, 8, 8)).total.backward()
    grad = lr_before_rounding[0].grad
    assert grad[:, :3].abs().max() > 0  # LR, through the quantiser
    assert grad[:, 3:].abs().max() == 0  # z is not what SR is made of


def test_a_flat_image_has_a_finite_gradient() -> None:
    model = iirn_x4(blocks=(1, 1))
    terms = RescalingLoss()(model, torch.zeros(1, 3, 8, 8))
    terms.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_training_on_it_lowers_it() -> None:
    model, loss, hr = iirn_x4(blocks=(1, 1)), RescalingLoss(), uniform(2, 3, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(8):
        terms = loss(model, hr)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        totals.append(float(terms.total.detach()))
    assert totals[-1] < totals[0]


def test_the_input_is_not_modified() -> None:
    hr = uniform(1, 3, 8, 8)
    before = hr.clone()
    RescalingLoss()(iirn_x4(blocks=(1, 1)), hr).total.backward()
    assert torch.equal(hr, before)


@pytest.mark.parametrize(
    "options",
    [
        {"reconstruction": -1},
        {"guide": -0.1},
        {"chroma": -1.0},
        {"latent": -1},
        {"epsilon": 0},
        {"epsilon": -1},
        {"guide": math.nan},
    ],
)
def test_weights_must_not_be_negative(options) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}={next(iter(options.values()))}"):
        RescalingLoss(**options)


def test_bad_input_is_named() -> None:
    model, loss = iirn_x4(blocks=(1, 1)), RescalingLoss()
    with pytest.raises(ShapeError, match=r"\(1, 3, 3, 2\) and LR \(1, 3, 2, 2\)"):
        loss(model, torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 3, 2))
    with pytest.raises(ShapeError, match=r"multiples of 4.*\(1, 3, 9, 8\)"):
        loss(model, torch.zeros(1, 3, 9, 8))
    with pytest.raises(DtypeError, match="uint8"):
        loss(model, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
