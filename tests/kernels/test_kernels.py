"""The inference kernels against the plain modules they stand in for."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, strategies as st
from running import in_threads
from strategies import uniform
from tolerances import AUTOCAST_SUBNET, KINKED, SAME
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from invertible_rescaling import (
    CRDB,
    RRDB,
    AffineCoupling,
    DenseBlock,
    iirn_x2,
    iirn_x4,
    irn_x4,
)
from invertible_rescaling.kernels import dense, dense_function, dispatch, fast_kernels, workspace
from invertible_rescaling.kernels.dense_backward import Gradients
from invertible_rescaling.kernels.narrow_conv import conv3x3, is_narrow
from invertible_rescaling.kernels.workspace import scratch
from invertible_rescaling.testing import randomize

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other channel": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the kernels on the smallest images too, and in several strips, so that small tests see it all; and
    in float64, where rounding hides nothing."""
    monkeypatch.setattr(dense_function, "_DTYPES", (torch.float32, torch.float64))
    monkeypatch.setattr(dense_function, "_LEAST_PIXELS", 0)
    monkeypatch.setattr(dense, "_STRIP_VALUES", 1)
    monkeypatch.setattr(dense, "_LEAST_ROWS", 5)
    monkeypatch.setattr(dense, "_GROUP_PIXELS", 150)  # two images of a batch together, or one, or all


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every sub-network the kernels run."""
    calls: list[int] = []
    for name in ("densely_connected", "_DenselyConnected"):
        plain = getattr(dense_function, name)
        plain = getattr(plain, "apply", plain)

        def counted(*args: object, plain: Callable[..., Tensor] = plain) -> Tensor:
            calls.append(1)
            return plain(*args)

        counted.apply = counted  # type: ignore[attr-defined]
        monkeypatch.setattr(dense_function, name, counted)
    return calls


def _both(function, mode=torch.no_grad) -> tuple[Tensor, Tensor]:
    with mode():
        fast = function()
        with fast_kernels(False):
            return fast, function()


@given(
    kind=st.sampled_from([CRDB, DenseBlock, RRDB]),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    growth=st.integers(1, 33),
    batch=st.integers(0, 3),
    side=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    mode=st.sampled_from([torch.no_grad, torch.inference_mode]),
    seed=st.integers(0, 99),
)
def test_equal_the_plain_sub_networks(kind, channels, growth, batch, side, layout, mode, seed) -> None:
    torch.manual_seed(seed)
    network = randomize(kind(*channels, growth=growth), 0.5)
    x = LAYOUTS[layout](torch.randn(max(batch, 1), channels[0], *side))[:batch]
    before = x.clone()
    with mode():
        fast = network(x)
        with fast_kernels(False):
            plain = network(x)
    assert torch.equal(x, before)
    assert fast.shape == plain.shape
    torch.testing.assert_close(fast, plain, atol=SAME[torch.float32], rtol=SAME[torch.float32])


@given(
    kind=st.sampled_from([CRDB, DenseBlock]),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    growth=st.integers(1, 33),
    step=st.sampled_from([4, 8]),
    batch=st.integers(1, 3),
    side=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_aligned_features_give_the_same_sums_and_gradients(
    kind, channels, growth, step, batch, side, seed
) -> None:
    """What half precision takes on a GPU, in float64 on the CPU."""
    torch.manual_seed(seed)
    network = randomize(kind(*channels, growth=growth), 0.5).double()
    x = torch.randn(batch, channels[0], *side, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(batch, channels[1], *side, dtype=torch.float64)
    with fast_kernels(False):
        wanted = [network(x), *_gradients(network, x, grad)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                dense_function,
                "_plain",
                lambda x, layers, pool=None: dense_function._aligned(x, layers, pool, step),
            )
            found = [network(x), *_gradients(network, x, grad)]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


def _gradients(network: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor | None]:
    wanted = [t for t in (x, *network.parameters()) if t.requires_grad]
    return [*torch.autograd.grad(network(x), wanted, grad)]


@given(
    kind=st.sampled_from([CRDB, DenseBlock, RRDB]),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    growth=st.integers(1, 33),
    batch=st.integers(1, 3),
    side=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    frozen=st.sets(st.integers(0, 15)),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 99),
)
def test_gradients_equal_the_plain_ones(
    kind, channels, growth, batch, side, layout, frozen, dtype, seed
) -> None:
    """In float64 to the last digits. In float32 a sum in another order may put one activation on the other
    side of LeakyReLU's kink, which changes the gradients of the pixels around it: there the norm is held."""
    torch.manual_seed(seed)
    network = randomize(kind(*channels, growth=growth), 0.5).to(dtype)
    for index, parameter in enumerate(network.parameters()):
        parameter.requires_grad_(index not in frozen)
    x = LAYOUTS[layout](torch.randn(batch, channels[0], *side, dtype=dtype)).requires_grad_(15 not in frozen)
    grad = torch.randn(batch, channels[1], *side, dtype=dtype)
    if not any(t.requires_grad for t in (x, *network.parameters())):
        return
    fast = _gradients(network, x, grad)
    with fast_kernels(False):
        plain = _gradients(network, x, grad)
    for a, b in zip(fast, plain, strict=True):
        if dtype == torch.float64:
            torch.testing.assert_close(a, b, atol=SAME[dtype] * (1 + float(b.abs().max())), rtol=0)
        else:
            assert (a - b).norm() <= KINKED * (1 + b.norm())


def _largest_error(kind: type[nn.Module], channels: tuple[int, int], growth: int) -> float:
    """Of the kernels' gradients in float32, against the plain modules' in float64: the largest of all
    parameters' and the input's, relative to its norm."""
    network, x, grad = _clear_of_kinks(kind, channels, growth)
    fast = _gradients(copy.deepcopy(network).float(), x.float().requires_grad_(), grad.float())
    with fast_kernels(False):
        plain = _gradients(network, x.requires_grad_(), grad)
    return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(fast, plain, strict=True))


def _clear_of_kinks(
    kind: type[nn.Module], channels: tuple[int, int], growth: int
) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in float64, an input and a gradient, of which rounding to float32 puts no activation on the
    other side of a kink, and no other pixel at a maximum."""
    for seed in range(100):
        torch.manual_seed(seed)
        network = randomize(kind(*channels, growth=growth), 0.5).float().double()
        x = torch.randn(3, channels[0], 9, 8).double()
        with torch.no_grad(), fast_kernels(False):
            features = _features(network, x).flatten(2)
        highest = features.topk(2, dim=2).values
        gap = min(float(features.abs().min()), float((highest[..., 0] - highest[..., 1]).min()))
        if gap > 1e-5:
            return network, x, torch.randn(3, channels[1], 9, 8).double()
    raise AssertionError("each of a hundred networks has an activation at a kink")


def _features(network: nn.Module, x: Tensor) -> Tensor:
    """The input and all that the hidden convolutions make of it."""
    for conv in network.features.convs:
        found = F.conv2d(x, conv.weight, conv.bias, padding=conv.dilation, dilation=conv.dilation)
        x = torch.cat((x, F.leaky_relu(found, 0.2)), dim=1)
    return x


OF_SHIPPED_MODELS = [(CRDB, (3, 9), 16), (CRDB, (9, 3), 8), (DenseBlock, (3, 9), 12)]


@pytest.mark.parametrize(("kind", "channels", "growth"), OF_SHIPPED_MODELS)
def test_gradients_in_float32_are_those_of_float64(kind, channels, growth) -> None:
    assert _largest_error(kind, channels, growth) < SAME[torch.float32]


@pytest.mark.parametrize(("kind", "channels", "growth"), OF_SHIPPED_MODELS)
def test_a_weight_gradient_that_is_a_little_wrong_would_be_noticed(
    kind, channels, growth, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Gradients.result

    def wrong(self: Gradients) -> list[Tensor | None]:
        self.last *= 1.015
        return right(self)

    monkeypatch.setattr(Gradients, "result", wrong)
    assert _largest_error(kind, channels, growth) > 1e-2


def test_equal_maxima_share_their_gradient() -> None:
    """A flat image has its maximum everywhere."""
    network, x = randomize(CRDB(3, 3), 0.5), torch.full((1, 3, 9, 9), 0.5, requires_grad=True)
    grad = uniform(1, 3, 9, 9)
    fast = _gradients(network, x, grad)
    with fast_kernels(False):
        torch.testing.assert_close(fast, _gradients(network, x, grad), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [CRDB, DenseBlock])
def test_gradients_of_gradients_equal_the_plain_ones(kind) -> None:
    network, x = randomize(kind(3, 3), 0.5), uniform(2, 3, 7, 8).requires_grad_()

    def second_order() -> list[Tensor]:
        (first,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        return [*torch.autograd.grad(first.square().sum(), [x, *network.parameters()], allow_unused=True)]

    fast = second_order()
    with fast_kernels(False):
        plain = second_order()
    for a, b in zip(fast, plain, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            torch.testing.assert_close(a, b, atol=1e-4 * (1 + float(b.abs().max())), rtol=0)


def test_gradients_of_gradients_of_a_network_used_twice_equal_the_plain_ones() -> None:
    network, x = randomize(CRDB(3, 3), 0.5), uniform(1, 3, 7, 8)

    def first_order() -> list[Tensor]:
        out = network(network(x)).square().sum()
        return [*torch.autograd.grad(out, [*network.parameters()], create_graph=True)]

    fast = first_order()
    with fast_kernels(False):
        plain = first_order()
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * (1 + float(b.detach().abs().max())), rtol=0)


@pytest.mark.parametrize("kind", [CRDB, DenseBlock])
def test_hooks_on_a_sub_network_are_called_and_those_on_its_parts_are_not(kind, used: list[int]) -> None:
    network, heard = kind(3, 3), []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: heard.append(name))
    for enabled in (True, False):
        with torch.no_grad(), fast_kernels(enabled):
            network(uniform(1, 3, 8, 8))
    assert heard == ["", ""]
    assert len(used) == 1


@pytest.mark.parametrize("part", ["features.convs.1", "last", "attention.mlp.0"])
def test_parametrized_convolutions_are_computed_with(part: str) -> None:
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    network, x = randomize(CRDB(3, 3), 0.5), uniform(1, 3, 9, 9)
    expected = copy.deepcopy(network)
    with torch.no_grad():
        expected.get_submodule(part).weight.mul_(2)
    nn.utils.parametrize.register_parametrization(network.get_submodule(part), "weight", Doubled())
    fast, plain = _both(lambda: network(x))
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast, expected(x).detach(), atol=1e-5, rtol=1e-5)
    grads = torch.ones_like(x)
    (found,) = torch.autograd.grad(
        network(x), [network.get_submodule(part).parametrizations.weight.original], grads
    )
    (given,) = torch.autograd.grad(expected(x), [expected.get_submodule(part).weight], grads)
    torch.testing.assert_close(found, 2 * given, atol=1e-4, rtol=1e-4)


def test_transforms_over_parameters_see_the_plain_modules(used: list[int]) -> None:
    network, x = randomize(CRDB(3, 3), 0.5), uniform(2, 3, 9, 9)
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(network, parameters, x).square().sum()

    found = grad(loss)(parameters, x)
    expected = _gradients(network, x, 2 * network(x).detach())
    for a, b in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    used.clear()
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x.unsqueeze(1))
    for name, a in each.items():
        torch.testing.assert_close(a.sum(0), found[name], atol=1e-4, rtol=1e-4)
    models = {name: torch.stack((p, 2 * p)) for name, p in parameters.items()}
    ensemble = vmap(lambda p: functional_call(network, p, x))(models)
    with torch.no_grad():
        torch.testing.assert_close(ensemble[0], network(x), atol=1e-5, rtol=1e-5)


def test_an_ensemble_without_gradients() -> None:
    model, hr = randomize(iirn_x2(blocks=1), 0.5).eval(), uniform(1, 3, 12, 12)
    stacked = {name: torch.stack((p.detach(), p.detach())) for name, p in model.named_parameters()}
    with torch.no_grad():
        lr, z = vmap(lambda p: functional_call(model, p, hr))(stacked)
        torch.testing.assert_close((lr[1], z[1]), model(hr), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [CRDB, DenseBlock])
def test_many_gradients_at_once(kind) -> None:
    network, x = randomize(kind(3, 3), 0.5), uniform(1, 3, 7, 7).requires_grad_()
    wanted, grads = [x, *network.parameters()], uniform(4, 1, 3, 7, 7)
    together = torch.autograd.grad(network(x), wanted, grads, is_grads_batched=True)
    for index, one in enumerate(grads):
        for a, b in zip(together, torch.autograd.grad(network(x), wanted, one), strict=True):
            torch.testing.assert_close(a[index], b, atol=1e-4, rtol=1e-4)


def test_another_default_device_does_not_matter() -> None:
    model, hr = randomize(iirn_x2(blocks=1), 0.5).eval(), uniform(1, 3, 12, 12)
    expected = model.downscale(hr)
    with torch.device("meta"):
        assert torch.equal(model.downscale(hr), expected)
        model(hr)[0].sum().backward()
    with torch.no_grad():
        lr, z = copy.deepcopy(model).to("meta")(hr.to("meta"))
    assert (lr.shape, z.shape) == ((1, 3, 6, 6), (1, 9, 6, 6))


def test_backward_inside_autocast_is_as_precise_as_outside() -> None:
    network, x = randomize(CRDB(3, 3), 0.5), uniform(2, 3, 9, 9).requires_grad_()
    ones = torch.ones(2, 3, 9, 9)
    expected = _gradients(network, x, ones)
    out, wanted = network(x), [x, *network.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(out, wanted, ones)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("kind", [CRDB, DenseBlock, RRDB])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sub_networks_keep_the_layout_at_any_size(kind, layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    network = kind(9, 3)
    for side in (8, 40):
        x = uniform(2, 9, side, side).contiguous(memory_format=layout)
        assert network(x).is_contiguous(memory_format=layout)
        with torch.no_grad():
            assert network(x).is_contiguous(memory_format=layout)


def test_changing_a_weight_before_backward_is_noticed() -> None:
    network, x = randomize(CRDB(3, 3), 0.5), uniform(1, 3, 8, 8).requires_grad_()
    out = network(x)
    with torch.no_grad():
        network.last.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("filters", [1, 3, 9, 16])
def test_a_convolution_with_few_filters_is_a_convolution(filters: int, dtype: torch.dtype) -> None:
    x, weight, bias, grad = (
        uniform(*shape, dtype=dtype).requires_grad_()
        for shape in ((2, 2, 3, 4), (filters, 2, 3, 3), (filters,), (2, filters, 3, 4))
    )
    out, expected = conv3x3(x, weight, bias), nn.functional.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(out, expected)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight, bias), grad) for y in (out, expected)), strict=True):
        torch.testing.assert_close(a, b)
    assert is_narrow(filters) == (filters != 16)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(conv3x3, (x, weight, bias))
        assert torch.autograd.gradgradcheck(conv3x3, (x, weight, bias))


@given(
    kind=st.sampled_from([CRDB, DenseBlock, RRDB]),
    channels=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    batch=st.integers(1, 3),
    side=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    mode=st.sampled_from([torch.no_grad, torch.inference_mode]),
    seed=st.integers(0, 99),
)
def test_equal_the_plain_sub_networks_under_autocast(kind, channels, batch, side, layout, mode, seed) -> None:
    torch.manual_seed(seed)
    network = randomize(kind(*channels, growth=8), 0.5)
    x = LAYOUTS[layout](torch.randn(batch, channels[0], *side))
    with mode(), torch.autocast("cpu", torch.bfloat16):
        fast = network(x)
        with fast_kernels(False):
            plain = network(x)
    assert fast.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(fast.float(), plain.float(), atol=AUTOCAST_SUBNET, rtol=0)


@given(
    factory=st.sampled_from([iirn_x4, irn_x4, iirn_x2]),
    latent=st.sampled_from(["wavelet", "zero"]),
    batch=st.integers(1, 2),
    side=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    mode=st.sampled_from([torch.no_grad, torch.inference_mode]),
    seed=st.integers(0, 99),
)
def test_a_rescaler_gives_the_same_both_ways(factory, latent, batch, side, layout, mode, seed) -> None:
    torch.manual_seed(seed)
    model = randomize(factory(blocks=1, latent=latent), 0.5).eval()
    hr = LAYOUTS[layout](torch.rand(batch, 3, *side))
    both = partial(_both, mode=mode)
    fast, plain = both(lambda: model.downscale(hr))
    # A value between two 8-bit levels may fall to either side.
    assert (fast - plain).abs().max() <= 1.001 / 255
    assert (fast != plain).float().mean() <= 0.02
    torch.testing.assert_close(*both(lambda: model.upscale(plain, side)), atol=1e-5, rtol=0)
    even = hr[..., : side[0] // 4 * 4, : side[1] // 4 * 4]
    if even.numel():
        torch.testing.assert_close(*both(lambda: torch.cat(model(even), 1)), atol=1e-5, rtol=0)


def test_the_kernels_are_what_runs(used: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_function, "_DTYPES", (torch.float32,))  # as it is outside these tests
    model, hr = iirn_x4(blocks=1), torch.rand(1, 3, 32, 32)
    model.upscale(model.downscale(hr))
    assert len(used) == 12
    model(hr)[0].sum().backward()
    assert len(used) == 18
    with fast_kernels(False):
        model.downscale(hr)
        model(hr)
    with torch.autocast("cpu"):  # gradients under autocast are the plain modules'
        model(hr)
    model.double()(hr.double())
    assert len(used) == 18


def test_a_wrong_kernel_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = randomize(CRDB(9, 3), 0.5), uniform(1, 9, 12, 12)
    monkeypatch.setattr(dense, "strips", lambda height, width, channels: [(0, 6), (7, height)])
    fast, plain = _both(lambda: network(x))
    assert not torch.allclose(fast[:, :, 7:], plain[:, :, 7:], atol=1e-4)


def test_formats_of_images_are_kept() -> None:
    model, hr = iirn_x4(blocks=1), torch.rand(2, 3, 22, 36)
    for layout in (torch.contiguous_format, torch.channels_last):
        lr = model.downscale(hr.contiguous(memory_format=layout))
        assert lr.is_contiguous(memory_format=layout)
        assert model.upscale(lr, (22, 36)).is_contiguous(memory_format=layout)


def test_several_threads_at_once_get_the_same() -> None:
    model = randomize(iirn_x4(blocks=2), 0.5).eval()
    images = [torch.rand(1, 3, 24 + 4 * i, 40) for i in range(4)]
    alone = [model.downscale(image) for image in images]
    for results, expected in zip(in_threads(lambda i: model.downscale(images[i]), 4), alone, strict=True):
        assert all(torch.equal(result, expected) for result in results)


def test_several_threads_at_once_get_the_same_gradients() -> None:
    model = randomize(iirn_x4(blocks=1), 0.5)
    images = [torch.rand(1, 3, 24 + 4 * i, 40) for i in range(4)]

    def gradients(i: int) -> list[Tensor | None]:
        lr, z = model(images[i])
        loss = lr.square().mean() + model.inverse(lr, 0.5 * z).square().mean()
        return [*torch.autograd.grad(loss, [*model.parameters()])]

    alone = [gradients(i) for i in range(4)]
    for results, expected in zip(in_threads(gradients, 4), alone, strict=True):
        for result in results:
            assert all(map(torch.equal, result, expected))


def test_one_buffer_serves_all_sub_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = iirn_x4(blocks=2), torch.rand(1, 3, 32, 32)
    asked: list[int] = []
    real = torch.empty
    monkeypatch.setattr(workspace.torch, "empty", lambda *a, **k: asked.append(1) or real(*a, **k))
    with torch.no_grad(), scratch(), scratch():
        model(x)
    shared = len(asked)
    with torch.no_grad():
        for layer in model.flow:
            x = layer(x)
    assert len(asked) - shared > shared
    assert workspace._local.buffers is None


def test_a_switch_is_undone_by_an_error() -> None:
    with pytest.raises(RuntimeError), fast_kernels(False):
        raise RuntimeError
    assert dispatch._local.enabled
    with pytest.raises(RuntimeError), scratch():
        raise RuntimeError
    assert workspace._local.buffers is None


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # of jvp's own
def test_transforms_of_functions_see_the_plain_modules() -> None:
    coupling, x = randomize(AffineCoupling(4, 1, CRDB), 0.5), uniform(3, 4, 8, 8)
    parameters = dict(coupling.named_parameters())
    with torch.no_grad():
        expected = coupling(x)
        mapped = vmap(lambda one: functional_call(coupling, parameters, one.unsqueeze(0)).squeeze(0))(x)
        value, tangent = jvp(coupling, (x,), (torch.ones_like(x),))
        slope = (coupling(x + 1e-2) - coupling(x - 1e-2)) / 2e-2
    torch.testing.assert_close(mapped, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tangent, slope, atol=2e-2, rtol=2e-2)


def test_compiled_and_exported_models_see_the_plain_modules() -> None:
    model, hr = randomize(iirn_x2(blocks=1), 0.5).eval(), uniform(1, 3, 16, 16)
    with torch.no_grad():
        lr, z = model(hr)
        for other in (
            torch.compile(model, backend="eager", fullgraph=True),
            torch.export.export(model, (hr,)).module(),
        ):
            got = other(hr)
            torch.testing.assert_close(got, (lr, z), atol=1e-5, rtol=1e-5)
