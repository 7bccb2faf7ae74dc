"""The adapters against the packages they are for: shapes, log-determinants, a density that is learned."""

import copy
import math
import pickle
from functools import partial

import FrEIA.framework
import FrEIA.modules
import pyro
import pytest
import torch
import zuko
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import ComposeTransform

from invertible_rescaling import (
    CRDB,
    AdditiveCoupling,
    AffineCoupling,
    HaarDownsampling,
    Inverse,
    InvertibleModule,
    InvertibleRescaler,
    InvertibleSequential,
    iirn_x2,
)
from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.flows import FlowTransform, FreiaLayer, LazyFlowTransform
from invertible_rescaling.testing import randomize
from tests.strategies import SmallConv, largest_difference, uniform

EXACT = 1e-11  # float64, two ways of adding the same log-determinants up


def image_flow(condition_channels: int = 0) -> InvertibleSequential:
    """(1, 4, 6) -> (4, 2, 3)."""
    make = partial(SmallConv)
    flow = InvertibleSequential(
        HaarDownsampling(1),
        AffineCoupling(4, 1, make, condition_channels=condition_channels),
        Inverse(AffineCoupling(4, 3, make)),
        AdditiveCoupling(4, 2, make, condition_channels=condition_channels),
    )
    return randomize(flow.double(), 0.8)


def vector_flow(condition_channels: int = 0) -> InvertibleSequential:
    layers = (AffineCoupling(3, split, SmallConv, condition_channels=condition_channels) for split in (1, 2))
    return randomize(InvertibleSequential(*layers).double(), 0.8)


def normal(*shape: int) -> Independent:
    return Independent(Normal(torch.zeros(shape, dtype=torch.float64), 1.0), len(shape))


IMAGES = uniform(5, 1, 4, 6, dtype=torch.float64)
VECTORS = uniform(5, 3, dtype=torch.float64)
CONDITIONS = uniform(5, 2, seed=1, dtype=torch.float64)

EVERY_LAYER = {
    "haar": lambda: HaarDownsampling(4),
    "affine": lambda: AffineCoupling(4, 1, SmallConv),
    "additive": lambda: AdditiveCoupling(4, 3, SmallConv),
    "inverse": lambda: Inverse(HaarDownsampling(1)),
    "sequence": lambda: InvertibleSequential(AffineCoupling(4, 1, SmallConv), HaarDownsampling(4)),
    "rescaler": lambda: InvertibleRescaler(2, channels=4, blocks=2, subnet=SmallConv).flow,
}


def expected(module: InvertibleModule, x: Tensor) -> tuple[Tensor, Tensor]:
    """The library's own, and the log-determinant of the Jacobian."""
    y = module(x)
    jacobians = [torch.func.jacrev(lambda v: module(v[None])[0].flatten())(one).flatten(1) for one in x]
    return y, torch.stack([torch.linalg.slogdet(jacobian)[1] for jacobian in jacobians])


# ------------------------------------------------------------------------------------- torch.distributions


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_every_layer_is_a_transform(name: str) -> None:
    module = randomize(EVERY_LAYER[name]().double(), 0.8)
    x = uniform(2, 4, 2, 4, dtype=torch.float64)
    y, log_det = expected(module, x)
    transform = FlowTransform(module)
    assert torch.equal(transform(x), y)
    assert largest_difference(transform.inv(y), x) <= 1e-12
    assert largest_difference(transform.log_abs_det_jacobian(x, y), log_det) <= EXACT
    assert largest_difference(transform.inv.log_abs_det_jacobian(y, x), -log_det) <= EXACT
    assert transform.forward_shape(x.shape) == y.shape
    assert transform.inverse_shape(y.shape) == x.shape
    assert transform.bijective
    assert transform.event_dim == 3
    assert transform.domain.check(x).all()


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_every_layer_is_a_freia_module(name: str) -> None:
    module = randomize(EVERY_LAYER[name]().double(), 0.8)
    x = uniform(2, 4, 2, 4, dtype=torch.float64)
    y, log_det = expected(module, x)
    inn = FrEIA.framework.SequenceINN(4, 2, 4)
    inn.append(FreiaLayer, module=module)
    found, jac = inn(x)
    assert torch.equal(found, y)
    assert inn.shapes[-1] == y.shape[1:]
    assert largest_difference(jac, log_det) <= EXACT
    back, jac = inn(y, rev=True)
    assert largest_difference(back, x) <= 1e-12
    assert largest_difference(jac, -log_det) <= EXACT
    assert {p.data_ptr() for p in inn.parameters()} == {p.data_ptr() for p in module.parameters()}


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (0,), (2, 0)])
def test_batches_of_any_rank(batch: tuple[int, ...]) -> None:
    for flow, dims, shape in ((image_flow(), 3, (1, 4, 6)), (vector_flow(), 1, (3,))):
        transform = FlowTransform(flow, event_dim=dims)
        x = uniform(*batch, *shape, dtype=torch.float64)
        y, log_det = transform.call_and_ladj(x)
        assert y.shape == transform.forward_shape(x.shape)
        assert y.shape[: len(batch)] == log_det.shape == batch
        assert transform.inv(y).shape == x.shape
        if x.numel():
            assert largest_difference(transform.inv(y), x) <= 1e-12


def test_conditions_are_broadcast() -> None:
    flow = image_flow(condition_channels=2)
    transform = FlowTransform(flow, CONDITIONS)
    for x in (IMAGES, IMAGES[0], IMAGES.expand(7, -1, -1, -1, -1)):
        y, log_det = transform.call_and_ladj(x)
        each = [flow.forward_with_log_det(v, CONDITIONS) for v in x.expand(7, *IMAGES.shape)]
        wanted = torch.stack([v for v, _ in each]), torch.stack([v for _, v in each])
        if x.dim() < 5:
            wanted = wanted[0][0], wanted[1][0]
        assert largest_difference(y, wanted[0]) <= 1e-12
        assert largest_difference(log_det, wanted[1]) <= EXACT
    maps = CONDITIONS[:, :, None, None].expand(-1, -1, 2, 3)
    assert torch.equal(FlowTransform(flow, maps, condition_dim=3)(IMAGES), transform(IMAGES))


def test_the_density_of_a_transformed_distribution() -> None:
    flow = image_flow()
    images = TransformedDistribution(normal(4, 2, 3), [FlowTransform(flow).inv])
    z, log_det = flow.forward_with_log_det(IMAGES)
    assert images.event_shape == (1, 4, 6)
    assert largest_difference(images.log_prob(IMAGES), normal(4, 2, 3).log_prob(z) + log_det) <= EXACT
    assert images.rsample((3,)).requires_grad
    parts = ComposeTransform([FlowTransform(flow[0]), FlowTransform(InvertibleSequential(*list(flow)[1:]))])
    assert largest_difference(parts.log_abs_det_jacobian(IMAGES, z), log_det) <= EXACT


def test_with_a_cache_a_density_takes_one_pass() -> None:
    flow, calls = image_flow(), []
    flow[1].phi.register_forward_hook(lambda *_: calls.append(1))
    for cache_size, passes in ((0, 2), (1, 1)):
        transform = FlowTransform(flow).with_cache(cache_size)
        calls.clear()
        TransformedDistribution(normal(4, 2, 3), [transform.inv]).log_prob(IMAGES)
        assert len(calls) == passes
    other = IMAGES + 0.1
    assert not torch.equal(transform.log_abs_det_jacobian(other, other), transform.call_and_ladj(IMAGES)[1])
    y = transform(IMAGES)
    assert transform.inv(y) is IMAGES
    x = transform.inv(other := y + 0.1)
    assert (
        largest_difference(transform.log_abs_det_jacobian(x, other), transform.call_and_ladj(x)[1]) <= EXACT
    )
    assert transform.with_cache(1) is transform


def test_copies_of_transforms() -> None:
    transform = FlowTransform(image_flow(2), CONDITIONS)
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert torch.equal(other(IMAGES), transform(IMAGES))


# ---------------------------------------------------------------------------------------------------- zuko


def test_zuko_takes_transforms_and_flows() -> None:
    flow, base = vector_flow(), zuko.distributions.DiagNormal(torch.zeros(3).double(), torch.ones(3).double())
    z, log_det = flow.forward_with_log_det(VECTORS[:, :, None, None])
    wanted = base.log_prob(z.flatten(1)) + log_det
    density = zuko.distributions.NormalizingFlow(FlowTransform(flow, event_dim=1), base)
    assert largest_difference(density.log_prob(VECTORS), wanted) <= EXACT
    sample, log_prob = density.rsample_and_log_prob((4,))
    assert largest_difference(density.log_prob(sample), log_prob) <= EXACT
    own = zuko.transforms.ComposedTransform(
        FlowTransform(flow, event_dim=1), zuko.transforms.SoftclipTransform()
    )
    y, ladj = own.call_and_ladj(VECTORS)
    assert largest_difference(own.inv(y), VECTORS) <= 1e-10
    assert ladj.shape == (5,)


def test_zuko_flows_hand_the_context_on() -> None:
    module = vector_flow(condition_channels=2)
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(3).double(), torch.ones(3).double(), buffer=True
    )
    unconditional = LazyFlowTransform(vector_flow(), event_dim=1)
    flow = zuko.lazy.Flow([LazyFlowTransform(module, event_dim=1), unconditional], base)
    between, first = module.forward_with_log_det(VECTORS[:, :, None, None], CONDITIONS)
    z, second = unconditional.module.forward_with_log_det(between)
    wanted = normal(3).log_prob(z.flatten(1)) + first + second
    assert largest_difference(flow(CONDITIONS).log_prob(VECTORS), wanted) <= EXACT
    assert flow(CONDITIONS).sample((4,)).shape == (4, 5, 3)
    assert len(list(flow.parameters())) == 2 * len(list(module.parameters()))


# ---------------------------------------------------------------------------------------------------- pyro


def test_pyro_learns_a_posterior_through_a_flow() -> None:
    """The guide is a flow, and the posterior of a conjugate model is known."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    torch.manual_seed(0)
    flow = InvertibleSequential(AffineCoupling(2, 1, SmallConv, 2.0), AffineCoupling(2, 1, SmallConv, 2.0))
    seen, prior = torch.tensor([1.2, -0.4]), pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1)

    def model() -> None:
        mean = pyro.sample("mean", prior)
        pyro.sample("seen", pyro.distributions.Normal(mean, 0.5).to_event(1), obs=seen)

    def guide() -> None:
        pyro.module("flow", flow)
        posterior = pyro.distributions.TransformedDistribution(prior, [FlowTransform(flow, event_dim=1)])
        pyro.sample("mean", posterior)

    loss = Trace_ELBO(num_particles=64, vectorize_particles=True)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), loss=loss)
    for _ in range(150):
        svi.step()
    with torch.no_grad():
        draws = FlowTransform(flow, event_dim=1)(torch.randn(4000, 2))
    assert largest_difference(draws.mean(0), seen / 1.25) <= 0.1
    assert largest_difference(draws.std(0), torch.tensor(0.2).sqrt().expand(2)) <= 0.1
    assert {name for name in pyro.get_param_store() if name.startswith("flow$$$")}


# --------------------------------------------------------------------------------------------------- FrEIA


@pytest.mark.parametrize("shape", [(2,), (2, 2, 3)])
def test_freia_hands_conditions_on(shape: tuple[int, ...]) -> None:
    module = image_flow(condition_channels=2)
    inn = FrEIA.framework.SequenceINN(1, 4, 6)
    inn.append(FrEIA.modules.PermuteRandom, seed=0)
    inn.append(FreiaLayer, cond=0, cond_shape=shape, module=module)
    inn.double()
    condition = uniform(5, *shape, dtype=torch.float64)
    y, jac = inn(IMAGES, c=[condition])
    wanted, log_det = module.forward_with_log_det(IMAGES, condition)
    assert torch.equal(y, wanted)
    assert largest_difference(jac, log_det) <= EXACT
    assert largest_difference(inn(y, c=[condition], rev=True)[0], IMAGES) <= 1e-12


def test_freia_graphs_of_vectors() -> None:
    module = vector_flow(condition_channels=2)
    graph = FrEIA.framework
    vector, *conditions = graph.InputNode(3), graph.ConditionNode(1), graph.ConditionNode(1)
    node = graph.Node(vector, FreiaLayer, {"module": module}, conditions=conditions)
    inn = graph.GraphINN([vector, *conditions, node, graph.OutputNode(node)])
    y, jac = inn(VECTORS, c=[CONDITIONS[:, :1], CONDITIONS[:, 1:]])
    wanted, log_det = module.forward_with_log_det(VECTORS[:, :, None, None], CONDITIONS)
    assert torch.equal(y, wanted.flatten(1))
    assert largest_difference(jac, log_det) <= EXACT


# ---------------------------------------------------------------------------------------------- a toy density


class Swap(FrEIA.modules.InvertibleModule):
    def forward(self, x_or_z, c=None, rev=False, jac=True):
        return (x_or_z[0].flip(1),), 0.0

    def output_dims(self, input_dims):
        return input_dims


class Nothing(nn.Module):
    """In the place of a sub-network: a coupling of FrEIA's then scales only one half, as this library's."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def mlp(linear, in_channels: int, out_channels: int, width: int = 32) -> nn.Sequential:
    last = linear(width, out_channels)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    hidden = (linear(in_channels, width), nn.ReLU(), linear(width, width), nn.ReLU())
    return nn.Sequential(*hidden, last)


MLP = partial(mlp, nn.Linear)
MLP_OF_PIXELS = partial(mlp, lambda i, o: nn.Conv2d(i, o, 1))


def own_flow(depth: int) -> nn.Module:
    inn = FrEIA.framework.SequenceINN(2)
    for _ in range(depth):
        inn.append(FreiaLayer, module=AffineCoupling(2, 1, MLP_OF_PIXELS))
        inn.append(Swap)
    return inn


def freia_flow(depth: int) -> nn.Module:
    inn = FrEIA.framework.SequenceINN(2)
    for _ in range(depth):
        inn.append(FrEIA.modules.RNVPCouplingBlock, subnet_constructor=MLP, clamp=1.0)
        inn.append(Swap)
    return inn


def twin_of(own: nn.Module) -> nn.Module:
    """The same flow of FrEIA's own coupling, with the same weights."""
    twin = freia_flow(len(own) // 2)
    for ours, block in list(zip(own, twin, strict=True))[::2]:
        block.f_clamp = lambda u: torch.tanh(u / 2)
        block.subnet_s2 = Nothing()
        pairs = ((ours.module.phi, block.subnet_t2), (ours.module.rho, block.subnet_s1))
        for mine, theirs in (*pairs, (ours.module.eta, block.subnet_t1)):
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                b.data = a.detach().clone().view(b.shape)
    return twin


def two_moons(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    lower = torch.randint(2, (count,), generator=generator)
    angle = math.pi * torch.rand(count, generator=generator)
    moons = torch.stack((angle.cos() + lower - 0.5, angle.sin() * (1 - 2 * lower) + 0.5 * lower - 0.25), 1)
    return 1.5 * moons + 0.15 * torch.randn(count, 2, generator=generator)


def log_likelihood(inn: nn.Module, x: Tensor) -> Tensor:
    z, log_det = inn(x)
    return (normal(2).log_prob(z) + log_det).mean()


def train(inn: nn.Module, steps: int, seed: int, dtype: torch.dtype) -> float:
    """Log-likelihood of 20,000 fresh points after so many steps of 512."""
    optimizer = torch.optim.Adam(inn.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    points = two_moons(512 * steps, seed).to(dtype)
    for batch in points.split(512):
        optimizer.zero_grad()
        (-log_likelihood(inn, batch)).backward()
        nn.utils.clip_grad_norm_(inn.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float(log_likelihood(inn, two_moons(20_000, seed=999).to(dtype)))


def gaussian_fit(x: Tensor) -> float:
    return float(torch.distributions.MultivariateNormal(x.mean(0), x.T.cov()).log_prob(x).mean())


def test_a_flow_trains_as_its_twin_of_freias_couplings_does() -> None:
    """Step by step the same flow: what is left after 60 steps is rounding, in float64."""
    own = own_flow(4).double()
    twin = twin_of(own).double()
    found, wanted = (train(inn, 60, 0, torch.float64) for inn in (own, twin))
    assert abs(found - wanted) <= 1e-8
    assert found > gaussian_fit(two_moons(20_000, seed=999)) + 0.1  # it has learned something


@pytest.mark.slow
def test_flows_reach_the_likelihood_of_freias_with_as_many_parameters() -> None:
    """Eight couplings of three networks beside six of FrEIA's RealNVP with four; two seeds each."""
    reached: dict[str, list[float]] = {"own": [], "freia": []}
    for seed in range(2):
        torch.manual_seed(seed)
        own, freia = own_flow(8), freia_flow(6)
        assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in freia.parameters())
        reached["own"].append(train(own, 400, seed, torch.float32))
        reached["freia"].append(train(freia, 400, seed, torch.float32))
    means = {name: sum(values) / 2 for name, values in reached.items()}
    assert means["own"] >= means["freia"] - 0.05, reached
    assert min(reached["own"]) >= gaussian_fit(two_moons(20_000, seed=999)) + 0.5


# ---------------------------------------------------------------------------------------------------- errors


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"InvertibleRescaler.*its flow"):
        FlowTransform(InvertibleRescaler(2, blocks=1))
    with pytest.raises(ConfigError, match="event_dim must be 1 for vectors or 3 for images, got 2"):
        FlowTransform(image_flow(), event_dim=2)
    with pytest.raises(ConfigError, match="condition_channels=2, and FlowTransform was given none"):
        FlowTransform(image_flow(2))
    with pytest.raises(ConfigError, match=r"condition_channels=0, and.*one of \(5, 2\)"):
        FlowTransform(image_flow(), CONDITIONS)
    with pytest.raises(ShapeError, match=r"at least 3 dimensions, got \(4, 6\)"):
        FlowTransform(image_flow())(IMAGES[0, 0])
    with pytest.raises(ShapeError, match=r"broadcastable, got \(5,\) and \(4,\)"):
        FlowTransform(image_flow(2), CONDITIONS[:4])(IMAGES)
    with pytest.raises(ShapeError, match="images of one pixel"):
        FlowTransform(Inverse(HaarDownsampling(1)), event_dim=1)(torch.ones(2, 4))
    with pytest.raises(ConfigError, match="FreiaLayer takes one input"):
        FreiaLayer([(1, 4, 6), (1, 4, 6)], module=image_flow())
    with pytest.raises(ConfigError, match=r"\[\(3,\)\] have 3 channels.*condition_channels=2"):
        FreiaLayer([(1, 4, 6)], [(3,)], module=image_flow(2))


def test_every_inverse_is_vectorised() -> None:
    flow = randomize(InvertibleSequential(HaarDownsampling(3), AffineCoupling(12, 3, CRDB)))
    y = uniform(4, 12, 3, 4)
    wanted = flow.inverse_with_log_det(y)
    found = torch.func.vmap(lambda one: tuple(part[0] for part in flow.inverse_with_log_det(one[None])))(y)
    model = randomize(iirn_x2(blocks=1)).eval()
    lr = uniform(4, 3, 4, 5)
    pairs = [
        *zip(found, wanted, strict=True),
        (torch.func.vmap(lambda one: model.upscale(one[None])[0])(lr), model.upscale(lr)),
        (
            torch.func.vmap(lambda one: model.inverse(one[None], model.latent(one[None]))[0])(lr),
            model.inverse(lr, model.latent(lr)),
        ),
    ]
    for ours, plain in pairs:
        assert largest_difference(ours, plain) < 1e-5


def test_a_state_of_another_precision_is_named() -> None:
    flow = InvertibleSequential(HaarDownsampling(3), AffineCoupling(12, 3, CRDB))
    for call in (flow, FlowTransform(flow)):
        with pytest.raises(DtypeError, match=r"was given torch.float64, and its weights are torch.float32"):
            call(uniform(1, 3, 4, 4, dtype=torch.float64))
