"""The latents: shapes, the wavelet one against its definition and its measured figures."""

import subprocess
import sys

import pytest
import pywt
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from invertible_rescaling import GaussianLatent, WaveletLatent, ZeroLatent, iirn_x4, psnr
from invertible_rescaling.errors import ConfigError, DtypeError, MissingDependencyError, ShapeError
from invertible_rescaling.functional import bicubic_resize, haar_decompose, quantize
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.registry import latents
from invertible_rescaling.tiling import declared_receptive_radius
from tests.strategies import DTYPES, LATENTS, largest_difference, seeds, uniform
from tests.tolerances import PRINTED_PSNR, SAME, WAVELET_TAPS

CORRECTIONS = ("ratio", "difference", "none")


@given(
    name=st.sampled_from(sorted(LATENTS)),
    scale=st.sampled_from((2, 4, 8)),
    size=st.tuples(*[st.integers(1, 4)] * 4),
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
)
def test_every_latent_has_the_shape_of_z(name: str, scale: int, size, seed: int, dtype) -> None:
    spec = LATENTS[name]
    options = dict(spec) if isinstance(spec, dict) else {"name": spec}
    latent = latents[options.pop("name")](scale=scale, **options)
    batch, channels, h, w = size
    lr = uniform(batch, channels, h, w, seed=seed, dtype=dtype)
    before = lr.clone()
    z = latent(lr)
    assert z.shape == (batch, channels * (scale**2 - 1), h, w)
    assert z.dtype == dtype
    assert torch.isfinite(z).all()
    assert torch.equal(lr, before)
    assert torch.equal(latent(lr), z)
    assert latent.state_dict() == {}


def _by_definition(lr: Tensor, scale: int, correction: str) -> Tensor:
    """The design's section 2, band by band."""
    channels, (h, w) = lr.shape[1], lr.shape[2:]
    kept: list[Tensor] = []

    def bicubic(size: tuple[int, int]) -> Tensor:
        return interpolate(lr, size=size, mode="bicubic", align_corners=False)

    state = bicubic((h * scale, w * scale))
    size = scale
    while size > 1:
        size //= 2
        state = haar_decompose(state)
        bands = list(state.chunk(4, dim=1))
        low = bands[0][:, :channels].clone()
        target = lr if size == 1 else bicubic((h * size, w * size))
        for band in bands[1:]:
            if correction == "ratio":
                band[:, :channels] *= ((target + 0.05) / (low + 0.05)).clamp(0.5, 2)
            elif correction == "difference":
                band[:, :channels] += target - low
    kept.append(state[:, channels:])
    return torch.cat(kept, dim=1)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_wavelet_latent_is_the_designs(scale: int, correction: str) -> None:
    lr = uniform(2, 3, 5, 4, dtype=torch.float64)
    lr[0] = (lr[0] > 0.5).double()  # extremes, where the ratio is clamped
    expected = _by_definition(lr, scale, correction)
    got = WaveletLatent(correction=correction, scale=scale)(lr)
    assert largest_difference(got, expected) < SAME[torch.float64]


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("correction", ["ratio", "difference", "none"])
def test_on_a_cpu_details_come_from_lr_itself(scale: int, correction: str) -> None:
    """To the last digits what enlarging and decomposing LR comes to, and with its gradients."""
    latent = WaveletLatent(correction=correction, scale=scale)
    for size in ((1, 1), (2, 5), (9, 4)):
        lr = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
        found = latent(lr)
        with fast_kernels(False):
            wanted = latent(lr)
        torch.testing.assert_close(found, wanted, atol=1e-13, rtol=1e-12)
        weight = torch.rand_like(wanted)
        (one,), (other,) = (torch.autograd.grad(made, lr, weight) for made in (found, wanted))
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(latent(lr.float()), latent(lr.float()).float())
            torch.testing.assert_close(latent(lr.float()), wanted.float(), atol=1e-5, rtol=1e-5)


def test_the_corrections_differ() -> None:
    lr = uniform(1, 3, 6, 6)
    zs = [WaveletLatent(correction=correction, scale=4)(lr) for correction in CORRECTIONS]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert largest_difference(zs[a], zs[b]) > 1e-3


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_flat_image_has_no_details(correction: str) -> None:
    z = WaveletLatent(correction=correction, scale=4)(torch.full((1, 3, 4, 4), 0.4, dtype=torch.float64))
    assert z.abs().max() < 1e-12


@pytest.mark.parametrize("wavelet", pywt.wavelist(kind="discrete"))
def test_every_discrete_wavelet_works_on_any_image(wavelet: str) -> None:
    latent = WaveletLatent(wavelet, scale=4)
    for height, width in ((1, 1), (3, 5)):
        z = latent(uniform(2, 3, height, width))
        assert z.shape == (2, 45, height, width)
        assert torch.isfinite(z).all()
        assert z.abs().max() < 10  # details of an image in [0, 1], not of the transform's own padding
    assert latent.state_dict() == {}
    assert list(latent.parameters()) == []


@pytest.mark.parametrize("wavelet", ["db2", "sym4", "coif1", "bior2.2", "dmey"])
def test_other_wavelets_are_scaled_as_the_haar_step_is(wavelet: str) -> None:
    flat = WaveletLatent(wavelet, "none", scale=4)(torch.full((1, 3, 3, 5), 0.7, dtype=torch.float64))
    assert flat.abs().max() < 1e-3  # dmey's taps are rounded, the others' are not
    ramp = torch.linspace(0, 1, 32, dtype=torch.float64).view(1, 1, 1, 32).expand(1, 1, 32, 32)
    ours = WaveletLatent("haar", "none", scale=2)(ramp)[..., 10:-10, 10:-10].unflatten(1, (3, 1))
    theirs = WaveletLatent(wavelet, "none", scale=2)(ramp)[..., 10:-10, 10:-10].unflatten(1, (3, 1))
    # A ramp along the rows has details in the first band alone, whatever the wavelet.
    assert ours[:, 1:].abs().max() < 1e-12
    assert theirs[:, 1:].abs().max() < 1e-3
    assert theirs.abs().max() <= ours.abs().max() + 1e-3


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_db1_is_haar(correction: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    lr = uniform(2, 3, *size, dtype=dtype)
    ours, theirs = (WaveletLatent(name, correction, scale=4)(lr) for name in ("haar", "db1"))
    assert largest_difference(ours, theirs) < WAVELET_TAPS


def _reaches(latent: WaveletLatent, lr: Tensor, at: tuple[int, int]) -> int:
    """How far a pixel of z depends on LR pixels, to the farthest of four sides."""
    lr = lr.clone().requires_grad_()
    row, column = at
    z = latent(lr)[0, :, row, column]
    (grad,) = torch.autograd.grad(z @ torch.linspace(1, 2, len(z), dtype=z.dtype), lr)
    rows, columns = (grad.abs().sum((0, 1, 2 + side)).nonzero() for side in (1, 0))
    return int(max(row - rows.min(), rows.max() - row, column - columns.min(), columns.max() - column))


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("wavelet", ["haar", "db1", "db2", "db4", "bior3.1", "coif1", "dmey"])
def test_the_reach_is_an_upper_bound(wavelet: str, scale: int, correction: str) -> None:
    if wavelet == "dmey" and scale == 8:
        return  # reaches over most of an image that is small enough for a test
    latent = WaveletLatent(wavelet, correction, scale=scale)
    side = 2 * latent.receptive_radius + 5
    lr = uniform(1, 1, side, side, dtype=torch.float64)
    for at in ((side // 2, side // 2), (1, side // 2), (side - 1, side - 1)):
        assert _reaches(latent, lr, at) <= latent.receptive_radius
    # And not much of one; taps that round to nothing apart.
    assert _reaches(latent, lr, (side // 2, side // 2)) >= latent.receptive_radius - 1 - (wavelet == "dmey")


@pytest.mark.parametrize(("wavelet", "receptive_radius"), [("haar", 2), ("db1", 2), ("db2", 3), ("db4", 5)])
def test_the_reach_follows_from_the_filters(wavelet: str, receptive_radius: int) -> None:
    assert WaveletLatent(wavelet, scale=4).receptive_radius == receptive_radius


@given(
    wavelet=st.sampled_from(["haar", "db4", "bior2.2"]),
    correction=st.sampled_from(CORRECTIONS),
    scale=st.sampled_from([2, 4]),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    top=st.integers(0, 23),
    left=st.integers(0, 23),
    seed=seeds,
)
def test_a_part_seen_with_its_reach_is_that_of_the_whole(
    wavelet, correction, scale, size, top, left, seed
) -> None:
    latent, lr = WaveletLatent(wavelet, correction, scale=scale), uniform(1, 2, *size, seed=seed)
    top, left, receptive_radius = min(top, size[0] - 1), min(left, size[1] - 1), latent.receptive_radius
    above, before = min(top, receptive_radius), min(left, receptive_radius)
    part = lr[..., top - above : top + 1 + receptive_radius, left - before : left + 1 + receptive_radius]
    found = latent(part)[..., above, before]
    assert largest_difference(found, latent(lr)[..., top, left]) < SAME[torch.float32]


class Centred(WaveletLatent):
    """Depends on all of LR."""

    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(lr - lr.mean((2, 3), keepdim=True))


class CentredZero(ZeroLatent):
    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(lr) + lr.mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("kind", [Centred, CentredZero])
def test_a_subclass_with_a_forward_of_its_own_inherits_no_reach(kind) -> None:
    latent = kind(scale=4)
    assert declared_receptive_radius(latent) is None
    model = iirn_x4(blocks=(0, 0), latent=latent).eval()
    lr = uniform(1, 3, 24, 20)
    whole = model.upscale(lr)
    for options in ({}, {"overlap": 32}):
        assert largest_difference(model.upscale(lr, tile=32, **options), whole) < SAME[torch.float32]

    class SaysSo(kind):
        receptive_radius = 5

    assert declared_receptive_radius(SaysSo(scale=4)) == 5


def test_a_subclass_without_and_a_latent_as_it_is_keep_theirs() -> None:
    class Named(WaveletLatent):
        """Nothing else."""

    latent = Named(scale=4)
    assert declared_receptive_radius(latent) == latent.receptive_radius == 2
    handle = latent.register_forward_hook(lambda *_: None)
    assert declared_receptive_radius(latent) is None
    handle.remove()
    latent.forward = latent.forward
    assert declared_receptive_radius(latent) is None


@pytest.fixture(scope="module")
def untrained():
    return iirn_x4(blocks=(0, 0)).eval()  # identity couplings: LR is the mean of each 4x4 block


# RGB PSNR of Set5 and Set14 at x4, from the design's section 2.
FIGURES = {
    "ratio": (27.28, 24.85),
    "none": (27.26, 24.84),
    "difference": (26.36, 24.24),
    "zero": (24.64, 23.26),
    "bicubic": (26.90, 24.60),
}


@pytest.mark.parametrize(("column", "benchmark", "images"), [(0, "Set5", 5), (1, "Set14", 14)])
def test_the_measured_figures_are_reproduced(
    untrained, benchmarks, column: int, benchmark: str, images: int
) -> None:
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for path in find_images(benchmarks / benchmark):
        hr = from_uint8(read_image(path))[None]
        lr, _ = untrained(hr)
        lr = quantize(lr)
        for name in ("ratio", "none", "difference", "zero"):
            latent = ZeroLatent(scale=4) if name == "zero" else WaveletLatent(correction=name, scale=4)
            sr = untrained.upscale(lr, latent=latent(lr))
            found[name].append(float(psnr(sr, hr, border=4)))
        small = quantize(bicubic_resize(hr, (lr.shape[2], lr.shape[3])))
        sr = bicubic_resize(small, (hr.shape[2], hr.shape[3]), antialias=False).clamp(0, 1)
        found["bicubic"].append(float(psnr(sr, hr, border=4)))
    assert {len(values) for values in found.values()} == {images}
    means = {name: sum(values) / images for name, values in found.items()}
    assert means == pytest.approx({name: row[column] for name, row in FIGURES.items()}, abs=PRINTED_PSNR)


def test_a_seeded_gaussian_repeats_itself() -> None:
    lr = uniform(2, 3, 4, 4)
    latent = GaussianLatent(scale=4, seed=5)
    assert torch.equal(latent(lr), latent(lr))
    assert torch.equal(latent(lr), GaussianLatent(scale=4, seed=5)(lr))
    assert not torch.equal(latent(lr), GaussianLatent(scale=4, seed=6)(lr))


def test_a_seeded_gaussian_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    GaussianLatent(scale=4, seed=5)(uniform(1, 3, 4, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unseeded_gaussian_follows_its_generator_or_the_global_one() -> None:
    lr, latent = uniform(1, 3, 4, 4), GaussianLatent(scale=2)
    assert not torch.equal(latent(lr), latent(lr))
    first, second = (latent(lr, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(latent(lr))
    assert torch.equal(*draws)


def test_a_seed_and_a_generator_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="not both"):
        GaussianLatent(scale=2, seed=1)(uniform(1, 3, 4, 4), generator=torch.Generator())


def test_the_gaussian_has_its_standard_deviation() -> None:
    z = GaussianLatent(std=0.3, scale=8, seed=0)(torch.zeros(4, 3, 16, 16))
    assert float(z.std()) == pytest.approx(0.3, rel=0.01)
    assert abs(float(z.mean())) < 0.005
    assert torch.count_nonzero(GaussianLatent(std=0, scale=2)(torch.zeros(1, 3, 4, 4))) == 0


@pytest.mark.parametrize("std", [-1, float("nan"), float("inf"), "1", None, True])
def test_the_standard_deviation_must_be_a_number_of_at_least_0(std) -> None:
    with pytest.raises(ConfigError, match="std of at least 0"):
        GaussianLatent(std)


@pytest.mark.parametrize("seed", ["a", 1.5])
def test_the_seed_must_be_an_integer(seed) -> None:
    with pytest.raises(ConfigError, match="integer seed"):
        GaussianLatent(seed=seed)


@pytest.mark.parametrize("scale", [0, 1, 3, 6, -2, 2.0, "4"])
def test_the_scale_must_be_a_power_of_two(scale) -> None:
    with pytest.raises(ConfigError, match=f"power of two of at least 2, got {scale!r}"):
        ZeroLatent(scale=scale)


def test_a_scale_once_fixed_stays() -> None:
    latent = ZeroLatent()
    with pytest.raises(ConfigError, match="no scale yet"):
        latent(uniform(1, 3, 4, 4))
    assert latent.bind(4).bind(4) is latent
    with pytest.raises(ConfigError, match="for scale 4, not 2"):
        latent.bind(2)


@pytest.mark.parametrize("make", [ZeroLatent, GaussianLatent, WaveletLatent])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(3, 4, 4), ShapeError, r"\(3, 4, 4\)"),
        (torch.zeros(1, 3, 0, 4), ShapeError, r"\(1, 3, 0, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), DtypeError, "uint8"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.half), DtypeError, "float16"),
        ("lr.png", ShapeError, "str"),
    ],
)
def test_bad_lr_is_named(make, bad, error, message: str) -> None:
    with pytest.raises(error, match=message):
        make(scale=2)(bad)


def test_unknown_wavelets_and_corrections_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'hair'.*known: .*haar"):
        WaveletLatent("hair")
    with pytest.raises(ConfigError, match="ratio, difference, none, got 'product'"):
        WaveletLatent(correction="product")


def test_a_missing_pytorch_wavelets_is_named_and_haar_does_not_need_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_wavelets", None)
    with pytest.raises(MissingDependencyError, match="pip install pytorch-wavelets"):
        WaveletLatent("db2")
    assert WaveletLatent("haar", scale=2)(uniform(1, 3, 2, 2)).shape == (1, 9, 2, 2)


def test_another_wavelet_warns_of_nothing() -> None:
    code = "from invertible_rescaling import WaveletLatent; WaveletLatent('db2')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(latents.names()))
@pytest.mark.parametrize("wavelet", [None, "db2"])
def test_a_model_made_on_no_device_is_itself_again(name: str, wavelet: str | None) -> None:
    if wavelet and name != "wavelet":
        return
    latent = {"name": name} | ({"wavelet": wavelet} if wavelet else {})
    wanted = iirn_x4(blocks=1, latent=latent).eval()
    with torch.device("meta"):
        made = iirn_x4(blocks=1, latent=latent).eval()
    made = made.to_empty(device="cpu")
    made.load_state_dict(wanted.state_dict())
    lr = uniform(1, 3, 5, 6)
    found = []
    for model in (wanted, made, made.double().float()):
        torch.manual_seed(0)
        found.append(model.upscale(lr))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
