"""Reversible backpropagation of a rescaler in training: memory, the switch, compilers and processes."""

import copy
import pickle
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from invertible_rescaling import InvertibleRescaler, RescalingLoss, iirn_x2
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.layers import reversible_forward
from invertible_rescaling.testing import randomize
from tests.gradients import AUTOCAST_GRADIENT, GRADIENT, X, difference, gradients, stack
from tests.strategies import LATENTS, SmallConv, uniform


class Kept:
    """One saved tensor, counted for as long as it is kept."""

    alive = peak = 0

    def __init__(self, tensor: Tensor, parameters: set[int]) -> None:
        self.tensor = tensor
        self.bytes = 0 if tensor.data_ptr() in parameters else tensor.numel() * tensor.element_size()
        Kept.alive += self.bytes
        Kept.peak = max(Kept.peak, Kept.alive)

    def __del__(self) -> None:
        Kept.alive -= self.bytes


def peak_bytes(depth: int, *, reversible: bool) -> int:
    """The most that is kept for backward passes at any moment of a step, parameters apart."""
    model = randomize(InvertibleRescaler(4, blocks=depth, subnet="crdb"))
    model.enable_reversible_backprop(reversible)
    parameters = {p.data_ptr() for p in model.parameters()}
    Kept.alive = Kept.peak = 0
    with saved_tensors_hooks(lambda t: Kept(t, parameters), lambda kept: kept.tensor):
        RescalingLoss()(model, uniform(1, 3, 16, 16)).total.backward()
    assert Kept.alive == 0
    return Kept.peak


def test_the_memory_does_not_grow_with_depth() -> None:
    two, six = (peak_bytes(depth, reversible=True) for depth in (2, 6))
    plain_two, plain_six = (peak_bytes(depth, reversible=False) for depth in (2, 6))
    assert two == six
    assert plain_six > 2.5 * plain_two > 5 * two


def test_reversible_backprop_is_off_at_first_and_can_be_switched() -> None:
    model, hr = iirn_x2(blocks=1), uniform(1, 3, 4, 4)
    nodes = [model(hr)[0], model.enable_reversible_backprop()(hr)[0]]
    nodes += [model.enable_reversible_backprop(False)(hr)[0]]
    assert ["_Reversible" in str(y.grad_fn.next_functions) for y in nodes] == [False, True, False]
    model.enable_reversible_backprop()
    with torch.no_grad():
        assert model(hr)[0].grad_fn is None
    assert model.requires_grad_(False)(hr)[0].grad_fn is None


def test_the_switch_is_copied_and_pickled_and_not_part_of_the_weights() -> None:
    model, hr = randomize(iirn_x2(blocks=1)), uniform(1, 3, 8, 8)
    state, config = list(model.state_dict()), model.config
    model.enable_reversible_backprop()
    assert (list(model.state_dict()), model.config) == (state, config)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "_Reversible" in str(other(hr)[0].grad_fn.next_functions)


@pytest.mark.parametrize("latent", sorted(LATENTS))
def test_log_determinants_are_differentiable_all_the_same(latent: str) -> None:
    model = randomize(InvertibleRescaler(2, blocks=2, subnet=SmallConv, latent=LATENTS[latent]).double())
    hr = uniform(1, 3, 4, 6, dtype=torch.float64)
    expected = gradients(model, hr, lambda x: model.forward_with_log_det(x)[1])
    found = gradients(model.enable_reversible_backprop(), hr, lambda x: model.forward_with_log_det(x)[1])
    assert difference(found, expected) == 0


def test_second_derivatives_are_refused() -> None:
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(reversible_forward(stack(1), x).square().sum(), x, create_graph=True)
    with pytest.raises(ConfigError, match=r"call enable_reversible_backprop\(False\)"):
        grad.sum().backward()


def test_function_transforms_take_the_plain_way() -> None:
    flow = stack(1)
    jacobian = torch.func.jacrev(lambda x: reversible_forward(flow, x))(X[:1, :, :2, :2])
    torch.testing.assert_close(jacobian, torch.func.jacrev(flow)(X[:1, :, :2, :2]))


# Of the compiler's own, at any graph break behind which a tensor is no leaf; torch shows it once a process.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_models_train(autocast: bool) -> None:
    """The graph breaks where reversible backpropagation begins."""
    model, hr = randomize(iirn_x2(blocks=2), 0.5), uniform(1, 3, 8, 8)
    context = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext()

    def through(compute):
        def loss(x):
            with context:
                lr, z = compute(x)
            return lr.square().sum() + z.tanh().sum()

        return loss

    expected = gradients(model, hr, through(model))
    compiled = torch.compile(model.enable_reversible_backprop(), backend="aot_eager")
    found = gradients(model, hr, through(compiled))
    assert difference(found, expected) <= (AUTOCAST_GRADIENT if autocast else GRADIENT[torch.float32])


def test_compiled_inference_is_one_graph() -> None:
    model, hr = randomize(iirn_x2(blocks=1)).enable_reversible_backprop(), uniform(1, 3, 8, 8)
    with torch.no_grad():
        lr, z = torch.compile(model, backend="eager", fullgraph=True)(hr)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip((lr, z), model(hr), strict=True))


class BothWays(nn.Module):
    def __init__(self, model: InvertibleRescaler) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return RescalingLoss()(self.model, x).total


def test_distributed_training(tmp_path) -> None:
    model = randomize(iirn_x2(blocks=2).double())
    hr = uniform(2, 3, 8, 8, dtype=torch.float64)
    expected = gradients(model, hr, BothWays(model))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(BothWays(model.enable_reversible_backprop()))
        reduced = []
        wrapped.register_comm_hook(None, lambda _, bucket: _note(reduced, bucket))
        for _ in range(2):  # the second step is the one that finds its buckets in order
            assert difference(gradients(model, hr, wrapped), expected) <= 1e-8
        assert sum(reduced) == 2 * sum(p.numel() for p in model.parameters())
        del wrapped
    finally:
        torch.distributed.destroy_process_group()


OF_ONE_PROCESS = """
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from invertible_rescaling import iirn_x2
from invertible_rescaling.losses import RescalingLoss
from invertible_rescaling.testing import randomize

class BothWays(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return RescalingLoss()(self.model, x).total

rank, store = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
model = randomize(iirn_x2(blocks=2).double())
torch.manual_seed(1)
batches = torch.rand(2, 2, 3, 8, 8, dtype=torch.float64)
parameters = list(model.parameters())
plain = torch.autograd.grad(sum(BothWays(model)(hr) for hr in batches) / 2, parameters)
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
wrapped = DistributedDataParallel(BothWays(model.enable_reversible_backprop()))
for _ in range(2):
    model.zero_grad()
    wrapped(batches[rank]).backward()
    for parameter, expected in zip(parameters, plain, strict=True):
        assert (parameter.grad - expected).abs().max() <= 1e-8 * (1 + expected.abs().max())
print("equal")
"""


@pytest.mark.slow
def test_two_processes_get_the_mean_of_their_gradients(tmp_path) -> None:
    """Each has a batch of its own, so that either's own gradients would fail."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OF_ONE_PROCESS, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "equal\n"), err


def _note(reduced: list[int], bucket) -> torch.futures.Future:
    reduced.append(bucket.buffer().numel())
    done: torch.futures.Future = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done
