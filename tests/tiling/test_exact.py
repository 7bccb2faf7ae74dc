"""Tiles layer by layer against the whole image: nothing may be lost."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st
from running import in_threads
from strategies import LATENTS, SUBNETS, couplings, uniform
from tolerances import SAME, TILED, TILED_AUTOCAST
from torch import Tensor, nn

from invertible_rescaling import (
    CRDB,
    AdditiveCoupling,
    ChannelAttention,
    GaussianLatent,
    HaarDownsampling,
    InvertibleModule,
    InvertibleRescaler,
    InvertibleSequential,
    iirn_x2,
    iirn_x4,
)
from invertible_rescaling.errors import ConfigError, ShapeError, ValueRangeError
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.layers import CouplingLayer, CouplingStep
from invertible_rescaling.testing import check_invertible, check_log_det, randomize
from invertible_rescaling.tiling import exact, global_pooling


class TwoAttentions(nn.Sequential):
    """What the second pools depends on what the first does."""

    receptive_radius = 2

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 6, 3, padding=1),
            ChannelAttention(6, 2),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, padding=1),
            ChannelAttention(6, 2),
            nn.Conv2d(6, out_channels, 1),
        )


class OneForAll:
    """Hands out one network for each pair of numbers of channels: rho is eta, and couplings share them."""

    def __init__(self) -> None:
        self.made: dict[tuple[int, int], nn.Module] = {}

    def __call__(self, in_channels: int, out_channels: int) -> nn.Module:
        key = (in_channels, out_channels)
        return self.made.setdefault(key, CRDB(in_channels, out_channels, growth=4))


NETWORKS = {**SUBNETS, "two attentions": TwoAttentions, "shared": None}


def _model(scale: int, blocks: int, subnet: str, latent: object = "wavelet", **options) -> InvertibleRescaler:
    factory = OneForAll() if subnet == "shared" else NETWORKS[subnet]
    model = InvertibleRescaler(scale, blocks=blocks, subnet=factory, latent=latent, **options)
    return randomize(model.double(), 0.5).eval()


def _levels_off(a: Tensor, b: Tensor, bits: int) -> float:
    """How many levels two rounded images differ by, at most."""
    return float((a - b).abs().max() * (2**bits - 1))


@settings(max_examples=25)
@given(
    scale=st.sampled_from([2, 4, 8]),
    blocks=st.integers(0, 2),
    subnet=st.sampled_from(sorted(NETWORKS)),
    latent=st.sampled_from(sorted(LATENTS)),
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    tile=st.integers(6, 16),
    seed=st.integers(0, 99),
)
def test_tiles_equal_the_whole(scale, blocks, subnet, latent, batch, size, tile, seed) -> None:
    tile = -(-tile // scale) * scale
    model = _model(scale, blocks, subnet, LATENTS[latent])
    hr = uniform(batch, 3, *size, seed=seed, dtype=torch.float64)
    before = hr.clone()
    tiled, whole = model.downscale(hr, bits=16, tile=tile), model.downscale(hr, bits=16)
    assert torch.equal(hr, before)
    assert tiled.shape == whole.shape
    # A value between two levels may fall to either side.
    assert _levels_off(tiled, whole, 16) <= 1.001
    assert (tiled != whole).double().mean() <= 1e-3
    before = whole.clone()
    tiled, expected = model.upscale(whole, size, tile=tile), model.upscale(whole, size)
    assert torch.equal(whole, before)
    torch.testing.assert_close(tiled, expected, atol=TILED[torch.float64], rtol=0)


@pytest.mark.parametrize("subnet", sorted(NETWORKS))
def test_exact_tiles_equal_the_whole_image_in_float32_with_the_kernels(subnet: str) -> None:
    model, hr = _model(4, 2, subnet).float(), uniform(1, 3, 103, 166)
    lr, tiled = model.downscale(hr), model.downscale(hr, tile=64)
    assert _levels_off(tiled, lr, 8) <= 1.001
    assert (tiled != lr).float().mean() <= 1e-3
    sr = model.upscale(lr, (103, 166))
    torch.testing.assert_close(model.upscale(lr, (103, 166), tile=64), sr, atol=TILED[torch.float32], rtol=0)


def test_the_plain_modules_give_the_same() -> None:
    model, lr = _model(4, 1, "crdb").float(), uniform(1, 3, 50, 70)
    fast = model.upscale(lr, tile=64)
    with fast_kernels(False):
        plain = model.upscale(lr, tile=64)
        torch.testing.assert_close(plain, model.upscale(lr), atol=TILED[torch.float32], rtol=0)
    torch.testing.assert_close(plain, fast, atol=TILED[torch.float32], rtol=0)


def test_exact_tiles_equal_the_whole_image_in_several_threads_at_once() -> None:
    model = _model(4, 1, "crdb").float()
    images = [uniform(1, 3, 40 + 8 * i, 60, seed=i) for i in range(4)]

    def both(i: int) -> tuple[Tensor, Tensor]:
        lr = model.downscale(images[i], tile=16)
        return lr, model.upscale(lr, tile=16)

    alone = [both(i) for i in range(4)]
    for results, expected in zip(in_threads(both, 4), alone, strict=True):
        for result in results:
            assert all(map(torch.equal, result, expected))


def _error(model: InvertibleRescaler, lr: Tensor) -> float:
    return float((model.upscale(lr, tile=16) - model.upscale(lr)).abs().max())


@pytest.mark.parametrize("subnet", ["dense", "crdb", "own", "two attentions"])
def test_a_pixel_less_around_each_tile_would_be_noticed(subnet: str, monkeypatch) -> None:
    model, lr = _model(4, 1, subnet), uniform(1, 3, 32, 32, dtype=torch.float64)
    assert _error(model, lr) < TILED[torch.float64]
    receptive_radius_of = exact.receptive_radius_of
    monkeypatch.setattr(exact, "receptive_radius_of", lambda network: receptive_radius_of(network) - 1)
    assert _error(model, lr) > 100 * TILED[torch.float64]


@pytest.mark.parametrize("subnet", ["crdb", "two attentions", "shared"])
def test_statistics_of_each_tile_would_be_noticed(subnet: str, monkeypatch) -> None:
    model, lr = _model(4, 1, subnet), uniform(1, 3, 32, 32, dtype=torch.float64)
    assert _error(model, lr) < TILED[torch.float64]
    monkeypatch.setattr(global_pooling, "pooling", lambda rule: nullcontext())
    assert _error(model, lr) > 1e-4


def test_what_surrounds_a_tile_would_be_noticed_in_the_statistics(monkeypatch) -> None:
    model, lr = _model(4, 1, "crdb"), uniform(1, 3, 32, 32, dtype=torch.float64)
    share = global_pooling._sum_and_peak
    monkeypatch.setattr(
        global_pooling.Window, "pixels", property(lambda window: window.seen[1] - window.seen[0])
    )
    assert _error(model, lr) > 1e-4
    monkeypatch.undo()
    monkeypatch.setattr(global_pooling, "_sum_and_peak", lambda x: share(x[..., :-1]))
    assert _error(model, lr) > 1e-6


@given(case=couplings(dtypes=(torch.float64,)))
def test_steps_are_what_a_coupling_does(case) -> None:
    layer, x = case.build()
    y = layer(x).detach()
    for steps, start, end in ((layer.steps(), x, y), (layer.inverse_steps(), y, layer.inverse(y))):
        state = start.clone()
        with torch.no_grad():
            for step in steps:
                made = [network(state[:, step.reads]) for network in step.networks]
                state[:, step.writes] = step.combine(state[:, step.writes], *made)
        torch.testing.assert_close(state, end.detach(), atol=SAME[torch.float64], rtol=SAME[torch.float64])


def test_additive_couplings_and_layers_of_ones_own_run_too() -> None:
    model = _model(2, 0, "own")
    layers = [HaarDownsampling(3), *(AdditiveCoupling(12, 3, SUBNETS["crdb"]) for _ in range(2))]
    model.flow = randomize(InvertibleSequential(*layers).double(), 0.5)
    lr = uniform(1, 3, 30, 25, dtype=torch.float64)
    torch.testing.assert_close(model.upscale(lr, tile=16), model.upscale(lr), atol=1e-10, rtol=0)


def test_noise_is_that_of_the_whole() -> None:
    lr = uniform(2, 3, 20, 30, dtype=torch.float64)
    for seed in (None, 3):
        model = _model(4, 1, "own", GaussianLatent(0.3, seed=seed))
        found = []
        for options in ({}, {"tile": 16}, {"tile": 16, "overlap": model.receptive_field}):
            torch.manual_seed(5)
            found.append(model.upscale(lr, **options))
        for tiled in found[1:]:
            torch.testing.assert_close(tiled, found[0], atol=TILED[torch.float64], rtol=0)


class Blur(nn.Module):
    """A latent of a user's own, which says nothing of its receptive_radius."""

    def forward(self, lr: Tensor) -> Tensor:
        return (lr - lr.mean((2, 3), keepdim=True)).repeat(1, 3, 1, 1) / 10


def test_any_latent_is_that_of_the_whole() -> None:
    model, lr = _model(2, 1, "crdb", Blur()), uniform(2, 3, 30, 20, dtype=torch.float64)
    torch.testing.assert_close(model.upscale(lr, tile=16), model.upscale(lr), atol=1e-10, rtol=0)
    z = uniform(2, 9, 30, 20, seed=1, dtype=torch.float64)
    tiled, whole = model.upscale(lr, latent=z, tile=16), model.upscale(lr, latent=z)
    torch.testing.assert_close(tiled, whole, atol=1e-10, rtol=0)
    assert (whole - model.upscale(lr)).abs().max() > 1e-3


def test_the_memory_format_is_the_callers() -> None:
    model, hr = iirn_x2(blocks=1), uniform(2, 3, 33, 50)
    for options in ({"tile": 16}, {"tile": 16, "overlap": 4}):
        for layout in (torch.contiguous_format, torch.channels_last):
            lr = model.downscale(hr.contiguous(memory_format=layout), **options)
            assert lr.is_contiguous(memory_format=layout)
            sr = model.upscale(lr, (33, 50), **options)
            assert sr.is_contiguous(memory_format=layout)
        assert model.downscale(hr[..., ::2], **options).is_contiguous()


def test_inference_mode_and_gradients_change_nothing() -> None:
    model, hr = _model(2, 1, "crdb"), uniform(1, 3, 40, 33, dtype=torch.float64)
    lr = model.downscale(hr, tile=16)
    sr = model.upscale(lr, (40, 33), tile=16)
    assert not sr.requires_grad
    with torch.inference_mode():
        assert torch.equal(model.downscale(hr, tile=16), lr)
        assert torch.equal(model.upscale(lr, (40, 33), tile=16), sr)
    assert torch.equal(model.downscale(hr.requires_grad_(), tile=16), lr)


def test_under_autocast_only_the_networks_are_in_half_precision() -> None:
    model, hr = _model(4, 1, "crdb").float(), uniform(1, 3, 160, 128)
    with torch.autocast("cpu", torch.bfloat16):
        lr, tiled = model.downscale(hr), model.downscale(hr, tile=64)
        sr, tiled_sr = model.upscale(lr), model.upscale(lr, tile=64)
    assert tiled_sr.dtype == torch.float32
    assert (tiled - lr).abs().max() < TILED_AUTOCAST
    torch.testing.assert_close(tiled_sr, sr, atol=TILED_AUTOCAST, rtol=0)


class Opaque(InvertibleModule):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(3)

    def inverse(self, y: Tensor) -> Tensor:
        return y.flip(3)

    def forward_with_log_det(self, x):
        return self(x), x.new_zeros(x.shape[0])

    def inverse_with_log_det(self, y):
        return self.inverse(y), y.new_zeros(y.shape[0])


class Pyramid(nn.Module):
    """Pools half the image's size."""

    receptive_radius = 4

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.attention = ChannelAttention(in_channels)
        self.last = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x * self.attention.attention(x[..., ::2, ::2]))


def squeezed(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.AvgPool2d(3, 1, 1))


class Short(nn.Module):
    receptive_radius = 0

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


def _both(model: InvertibleRescaler, **options) -> list:
    lr, hr = torch.rand(1, 3, 20, 20), torch.rand(1, 3, 40, 40)
    return [lambda: model.downscale(hr, **options), lambda: model.upscale(lr, **options)]


def test_layers_and_networks_that_are_not_known_are_refused() -> None:
    model = iirn_x2(blocks=1)
    model.flow = InvertibleSequential(*model.flow, Opaque())
    for call in _both(model, tile=8):
        with pytest.raises(ConfigError, match=r"layer 2, Opaque, is neither a CouplingLayer .*overlap="):
            call()
    with pytest.raises(ConfigError, match="layer 2, Opaque, is neither a CouplingLayer"):
        _ = model.receptive_field
    for subnet, match in ((squeezed, "AvgPool2d"), (Pyramid, "maps as large as its input.*overlap=")):
        model = InvertibleRescaler(2, blocks=1, subnet=subnet).eval()
        for call in _both(model, tile=8):
            with pytest.raises(ConfigError, match=match):
                call()
        for call in _both(model, tile=8, overlap=4):
            call()
    for call in _both(InvertibleRescaler(2, blocks=1, subnet=Short), tile=8):
        with pytest.raises(ShapeError, match="must map"):
            call()


def test_a_latent_of_another_shape_is_refused() -> None:
    model, lr = iirn_x4(blocks=0), torch.rand(1, 3, 30, 20)
    with pytest.raises(ShapeError, match="same batch, height and width"):
        model.upscale(lr, latent=torch.rand(1, 45, 30, 10), tile=16)

    class Flat(nn.Module):
        receptive_radius = 0

        def forward(self, lr: Tensor) -> Tensor:
            return lr.new_zeros(1, 45, 1, 1)

    model.latent = Flat()
    with pytest.raises(ShapeError, match="same batch, height and width"):
        model.upscale(lr, tile=16)


class OwnFlow(InvertibleSequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(1))

    def inverse(self, y: Tensor) -> Tensor:
        return super().inverse(y).flip(1)


class OwnModel(InvertibleRescaler):
    def forward(self, hr: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(hr.flip(3))


class OwnWayBack(InvertibleRescaler):
    def inverse(self, lr: Tensor, z: Tensor) -> Tensor:
        return super().inverse(lr, z).flip(3)


def _with_layer(layer: InvertibleModule) -> InvertibleRescaler:
    model = iirn_x2(blocks=1)
    model.flow = InvertibleSequential(*model.flow, layer)
    return model


def _patched(name: str, *path: str) -> InvertibleRescaler:
    model = iirn_x2(blocks=1)
    module = model.get_submodule(".".join(path))
    setattr(module, name, getattr(module, name))
    return model


def _hooked(*path: str) -> InvertibleRescaler:
    model = iirn_x2(blocks=1)
    model.get_submodule(".".join(path)).register_forward_hook(lambda *_: None)
    return model


def _with_own_flow() -> InvertibleRescaler:
    model = iirn_x2(blocks=1)
    model.flow = OwnFlow(*model.flow)
    return model


CHANGED = {
    "a coupling patched": (
        lambda: _patched("forward", "flow", "layers", "1"),
        r"layer 1, AffineCoupling, has a patched forward\(\)",
    ),
    "its inverse patched": (
        lambda: _patched("inverse", "flow", "layers", "1"),
        r"layer 1, AffineCoupling, has a patched inverse\(\)",
    ),
    "a Haar step patched": (
        lambda: _patched("inverse", "flow", "layers", "0"),
        r"layer 0, HaarDownsampling, has a patched inverse\(\)",
    ),
    "a flow patched": (lambda: _patched("forward", "flow"), r"the flow has a patched forward\(\)"),
    "a model patched": (lambda: _patched("inverse"), r"Rescaler has a patched inverse\(\)"),
    "a coupling hooked": (
        lambda: _hooked("flow", "layers", "1"),
        "layer 1, AffineCoupling, has a forward hook",
    ),
    "a Haar step hooked": (lambda: _hooked("flow", "layers", "0"), "HaarDownsampling, has a forward hook"),
    "a flow hooked": (lambda: _hooked("flow"), "the flow has a forward hook"),
    "a model hooked": (lambda: _hooked(), "Rescaler has a forward hook"),
    "a flow's subclass": (_with_own_flow, r"the flow overrides forward\(\)"),
    "a model's forward": (lambda: OwnModel(2, blocks=1), r"OwnModel overrides forward\(\)"),
    "a model's inverse": (lambda: OwnWayBack(2, blocks=1), r"OwnWayBack overrides inverse\(\)"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_is_overridden_patched_or_hooked_is_not_passed_by(case: str) -> None:
    make, match = CHANGED[case]
    model = make()
    for call in _both(model, tile=8):
        with pytest.raises(ConfigError, match=f"{match}.*overlap="):
            call()
    with pytest.raises(ConfigError, match=match):
        _ = model.receptive_field
    for call in _both(model, tile=8, overlap=4):
        call()


def test_a_global_hook_is_refused_by_exact_tiles() -> None:
    model = iirn_x2(blocks=1)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        for call in _both(model, tile=8):
            with pytest.raises(ConfigError, match=r"global module hook.*overlap="):
                call()
    finally:
        handle.remove()
    for call in _both(model, tile=8):
        call()


class OwnSteps(CouplingLayer):
    """A user's coupling: the last channel is scaled by what the others say."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.network = SUBNETS["own"](channels - 1, 1)

    def steps(self) -> tuple[CouplingStep, ...]:
        def scale(part: Tensor, log_scale: Tensor, out: Tensor | None = None) -> Tensor:
            return torch.mul(part, log_scale.exp(), out=out)

        def unscale(part: Tensor, log_scale: Tensor, out: Tensor | None = None) -> Tensor:
            return torch.mul(part, (-log_scale).exp(), out=out)

        last = self.channels - 1
        return (
            CouplingStep(
                slice(0, last), slice(last, None), (self.network,), scale, unscale, lambda made: made
            ),
        )


def test_a_users_own_coupling_runs_in_tiles() -> None:
    model = _with_layer(randomize(OwnSteps(12), 0.3))
    lr = uniform(1, 3, 20, 20)
    torch.testing.assert_close(
        model.upscale(lr, tile=8), model.upscale(lr), atol=TILED[torch.float32], rtol=0
    )
    assert model.receptive_field > iirn_x2(blocks=1).receptive_field
    x = uniform(2, 12, 6, 6, dtype=torch.float64)
    check_invertible(model.flow.double()[2], x)
    check_log_det(model.flow[2], x[:1, :, :2, :2])


def test_bits_that_cannot_be_are_refused_before_any_layer_runs(monkeypatch) -> None:
    monkeypatch.setattr(exact, "shrink", lambda *_: pytest.fail("the layers have run"))
    for bits in (0, 17):
        for options in ({}, {"tile": 8}, {"tile": 8, "overlap": 0}):
            with pytest.raises(ValueRangeError, match=f"1 to 16 bits, got {bits}"):
                iirn_x2(blocks=1).downscale(torch.rand(1, 3, 16, 16), bits=bits, **options)


class Passes(nn.Module):
    """So many attentions in sequence; counts how often it is started."""

    receptive_radius = 0

    def __init__(self, attentions: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(ChannelAttention(in_channels) for _ in range(attentions))
        self.last = nn.Conv2d(in_channels, out_channels, 1)
        self.started = 0

    def forward(self, x: Tensor) -> Tensor:
        self.started += 1
        for attention in self.attentions:
            x = attention(x)
        return self.last(x)


@pytest.mark.parametrize("attentions", [0, 1, 3])
def test_a_network_runs_once_more_than_it_pools(attentions: int) -> None:
    model = InvertibleRescaler(2, blocks=1, subnet=partial(Passes, attentions))
    model.downscale(torch.rand(1, 3, 32, 32), tile=32)
    assert [module.started for module in model.modules() if isinstance(module, Passes)] == [
        attentions + 1
    ] * 3


@pytest.mark.parametrize("options", [{"tile": 16}, {"tile": 16, "overlap": 8}], ids=["exact", "on their own"])
def test_the_share_that_is_done_grows_to_one(options: dict[str, int]) -> None:
    model, hr = iirn_x4(blocks=1).eval(), uniform(2, 3, 33, 40)
    told: list[list[float]] = [[], []]
    lr = model.downscale(hr, **options, progress=told[0].append)
    model.upscale(lr, size=(33, 40), **options, progress=told[1].append)
    for shares in told:
        assert shares == sorted(set(shares))
        assert 0 < shares[0] < 0.2
        assert shares[-1] == 1
