"""The same results again: under deterministic algorithms, in other batches and on other threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from invertible_rescaling import InvertibleRescaler, RescalingLoss, iirn_x4
from invertible_rescaling.images import from_uint8
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.data import photograph
from tests.strategies import largest_difference, uniform
from tests.tolerances import REPRODUCED, REPRODUCED_LR

SUBNETS = ("crdb", "dense", "rrdb")


@pytest.fixture
def deterministic() -> Iterator[None]:
    """PyTorch also fills what is not initialised with NaN then, so that none of it is ever used."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture(params=[1, 2], ids="threads={}".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _model(subnet: str = "crdb", **options) -> InvertibleRescaler:
    small = {"name": subnet, "growth": 4 if subnet == "rrdb" else 16}
    return randomize(InvertibleRescaler(4, **{"blocks": 1, "subnet": small, **options}), 0.5)


def _both_ways(model: InvertibleRescaler, hr: Tensor) -> list[Tensor]:
    with torch.no_grad():
        lr, z = model(hr)
        stored = model.downscale(hr[..., :-1, :-2])
        return [lr, z, model.inverse(lr, z), stored, model.upscale(stored)]


def _step(model: InvertibleRescaler, hr: Tensor) -> list[Tensor]:
    """The loss, and the weights after a step of training."""
    model.load_state_dict(_model().state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    optimizer.zero_grad()
    loss = RescalingLoss()(model, hr).total
    loss.backward()
    optimizer.step()
    return [loss.detach(), *(parameter.detach().clone() for parameter in model.parameters())]


# Deterministic algorithms


@pytest.mark.usefixtures("deterministic", "threads")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("subnet", SUBNETS)
def test_inference_is_repeated_to_the_last_bit(subnet: str, fast: bool) -> None:
    model, hr = _model(subnet).eval(), uniform(2, 3, 80, 84)
    with fast_kernels(fast):
        once, again = _both_ways(model, hr), _both_ways(model, hr)
    assert all(tensor.isfinite().all() for tensor in once)
    assert all(map(torch.equal, once, again))


@pytest.mark.usefixtures("deterministic", "threads")
@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("fast", [True, False])
def test_training_is_repeated_to_the_last_bit(fast: bool, reversible: bool) -> None:
    model, hr = _model().enable_reversible_backprop(reversible), uniform(2, 3, 80, 84)
    with fast_kernels(fast):
        once, again = _step(model, hr), _step(model, hr)
    assert all(tensor.isfinite().all() for tensor in once)
    assert not torch.equal(once[-1], list(_model().parameters())[-1])
    assert all(map(torch.equal, once, again))


@pytest.mark.usefixtures("deterministic")
def test_tiles_are_repeated_to_the_last_bit() -> None:
    model, hr = _model().eval(), uniform(1, 3, 100, 90)
    for options in ({"tile": 32}, {"tile": 32, "overlap": 8}):
        lr = model.downscale(hr, **options)
        sr = model.upscale(lr, **options)
        assert sr.isfinite().all()
        assert torch.equal(model.downscale(hr, **options), lr)
        assert torch.equal(model.upscale(lr, **options), sr)


@pytest.mark.usefixtures("deterministic")
def test_seeded_noise_is_repeated() -> None:
    model, lr = _model(latent={"name": "gaussian", "seed": 3}).eval(), uniform(1, 3, 16, 16)
    assert torch.equal(model.upscale(lr), model.upscale(lr))


def _operations(loss: Tensor) -> set[str]:
    """The names of all that a backward pass would run."""
    found, todo = set(), [loss.grad_fn]
    seen = set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.add(type(node).__name__)
            todo += [function for function, _ in node.next_functions]
    return found


def test_off_the_cpu_nothing_is_differentiated_whose_gradient_is_not_repeatable() -> None:
    """PyTorch has no deterministic gradient of interpolation on a GPU; ``meta`` stands for one here."""
    model, hr = _model().to("meta"), torch.empty(2, 3, 32, 32, device="meta")
    assert any("Upsample" in name for name in _operations(RescalingLoss()(model, hr).total))
    torch.use_deterministic_algorithms(True)
    try:
        found = _operations(RescalingLoss()(model, hr).total)
    finally:
        torch.use_deterministic_algorithms(False)
    assert not any("Upsample" in name or "Pad" in name or "Scatter" in name for name in found)
    assert any("Mm" in name for name in found)


# Batches and threads


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("subnet", SUBNETS)
def test_results_do_not_depend_on_batch_or_threads(subnet: str, fast: bool) -> None:
    model = _model(subnet).eval()
    for size in ((80, 84), (40, 36)):  # with the kernels in the first stage, and without
        _check(model, uniform(3, 3, *size), fast)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("fast", [True, False])
def test_photographs_do_not_depend_on_batch_or_threads(fast: bool) -> None:
    model = iirn_x4(weights="DEFAULT").eval()
    pictures = [from_uint8(photograph(name)[:, :160, :200]) for name in ("astronaut", "chelsea", "coffee")]
    _check(model, torch.stack(pictures), fast)


def _check(model: InvertibleRescaler, hr: Tensor, fast: bool) -> None:
    """One image at a time on one thread with the plain modules, against all at once as it comes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with fast_kernels(False), torch.no_grad():
        lr = torch.cat([model(image)[0] for image in hr.split(1)])
        stored = torch.cat([model.downscale(image) for image in hr.split(1)])
        sr = torch.cat([model.upscale(image) for image in stored.split(1)])
    torch.set_num_threads(threads)
    with fast_kernels(fast), torch.no_grad():
        assert largest_difference(model(hr)[0], lr) <= REPRODUCED
        steps = (255 * (model.downscale(hr) - stored)).abs().round()
        assert float(steps.max()) <= 1
        assert float((steps == 0).float().mean()) >= REPRODUCED_LR
        assert largest_difference(model.upscale(stored), sr) <= REPRODUCED
