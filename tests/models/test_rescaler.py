"""The rescaler: the bijection, the two calls for images, and what it refuses."""

import copy
import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st
from torch import Tensor, nn

from invertible_rescaling import (
    CRDB,
    DenseBlock,
    GaussianLatent,
    InvertibleRescaler,
    Latent,
    WaveletLatent,
    ZeroLatent,
)
from invertible_rescaling.errors import (
    ConfigError,
    DtypeError,
    RescalingError,
    ShapeError,
    UnknownNameError,
    ValueRangeError,
)
from invertible_rescaling.functional import haar_decompose
from invertible_rescaling.images import from_uint8, to_uint8
from invertible_rescaling.testing import check_invertible, check_log_det, randomize
from tests.strategies import DTYPES, SUBNETS, largest_difference, rescalers, seeds, uint8_image, uniform
from tests.tolerances import AUTOCAST_ROUND_TRIP, LOG_DET, ROUND_TRIP, SAME

SMALL = {"name": "crdb", "growth": 8}


def _small(scale: int = 4, **options) -> InvertibleRescaler:
    return randomize(InvertibleRescaler(scale, **{"blocks": 1, "subnet": SMALL, **options})).eval()


@pytest.fixture(scope="module")
def model() -> InvertibleRescaler:
    return _small()


# The bijection


@given(case=rescalers())
def test_round_trip(case) -> None:
    model, hr = case.build()
    check_invertible(model, hr, tolerance=ROUND_TRIP[case.dtype])


@pytest.mark.parametrize(
    ("scale", "blocks", "subnet", "dtype"),
    [
        (2, 32, "dense", torch.float64),
        (4, (32, 32), "crdb", torch.float32),
        (4, (8, 8), "rrdb", torch.float32),
        (8, (1, 2, 32), "own", torch.float64),
        (8, (1, 2, 32), "own", torch.float32),
    ],
)
def test_round_trip_at_full_depth_and_width(scale: int, blocks, subnet: str, dtype: torch.dtype) -> None:
    factory = SUBNETS["own"] if subnet == "own" else subnet  # growth 32, as published
    model = randomize(InvertibleRescaler(scale, blocks=blocks, subnet=factory).to(dtype), 0.5)
    check_invertible(model, uniform(1, 3, 16, 16, dtype=dtype), tolerance=ROUND_TRIP[dtype])


@given(case=rescalers(dtypes=(torch.float32,)))
def test_an_8_bit_image_is_restored_bit_for_bit(case) -> None:
    model, hr = case.build()
    image = uint8_image(*hr.shape, seed=case.seed)
    with torch.no_grad():
        restored = model.inverse(*model(from_uint8(image)))
    assert torch.equal(to_uint8(restored), image)


@given(
    case=rescalers(
        dtypes=(torch.float64,), scales=(2, 4), max_blocks=2, max_channels=2, max_side=1, max_batch=2
    )
)
def test_log_det_agrees_with_the_jacobian_both_ways(case) -> None:
    model, hr = case.build()
    check_log_det(model, hr, tolerance=LOG_DET[case.dtype])


def test_log_det_at_scale_8() -> None:
    model = _small(8, channels=1).double()
    check_log_det(model, uniform(1, 1, 8, 8, dtype=torch.float64), tolerance=LOG_DET[torch.float64])


@given(case=rescalers())
def test_inputs_are_never_modified(case) -> None:
    model, hr = case.build()
    with torch.no_grad():
        lr, z = model(hr)
        stored = model.downscale(hr)
        for function, given_ in (
            (model, (hr,)),
            (model.forward_with_log_det, (hr,)),
            (model.inverse, (lr, z)),
            (model.inverse_with_log_det, (lr, z)),
            (model.downscale, (hr,)),
            (model.upscale, (stored,)),
        ):
            before = [t.clone() for t in given_]
            function(*given_)
            assert all(torch.equal(a, b) for a, b in zip(before, given_, strict=True))


@given(case=rescalers(max_batch=3))
def test_samples_of_a_batch_do_not_meet(case) -> None:
    model, hr = case.build()
    with torch.no_grad():
        whole = model(hr)
        for i in range(len(hr)):
            for one, every in zip(model(hr[i : i + 1]), whole, strict=True):
                tolerance = 10 * SAME[case.dtype]
                torch.testing.assert_close(one[0], every[i], rtol=tolerance, atol=tolerance)


def test_untrained_lr_is_the_mean_of_each_block_and_z_the_details() -> None:
    hr = uniform(2, 3, 8, 12, dtype=torch.float64)
    model = InvertibleRescaler(4, blocks=1).double()
    with torch.no_grad():
        lr, z = model(hr)
    assert largest_difference(lr, nn.functional.avg_pool2d(hr, 4)) < 1e-15
    expected = haar_decompose(haar_decompose(hr))
    assert largest_difference(torch.cat((lr, z), dim=1), expected) < 1e-15


@pytest.mark.parametrize(("scale", "levels"), [(2, 1), (4, 2), (8, 3), (16, 4)])
def test_each_stage_is_one_haar_step_and_its_couplings(scale: int, levels: int) -> None:
    blocks = tuple(range(1, levels + 1))
    model = InvertibleRescaler(scale, blocks=blocks, subnet=SUBNETS["own"])
    widths = [layer.channels for layer in model.flow]
    expected = []
    for stage, count in enumerate(blocks):
        expected += [3 * 4**stage] + [3 * 4 ** (stage + 1)] * count
    assert widths == expected
    assert all(layer.split == 3 for layer in model.flow if hasattr(layer, "split"))
    assert model.latent_channels == 3 * (scale**2 - 1)


def test_one_number_of_blocks_is_for_every_stage() -> None:
    assert InvertibleRescaler(8, blocks=2, subnet=SUBNETS["own"]).blocks == (2, 2, 2)


@pytest.mark.parametrize("subnet", ["crdb", "dense", "rrdb"])
def test_autocast_keeps_the_state_in_float32(subnet: str) -> None:
    model = _small(4, blocks=2, subnet={"name": subnet, "growth": 8})
    hr = uniform(2, 3, 16, 16)
    seen: list[torch.dtype] = []
    for layer in model.flow:
        layer.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        lr, z = model(hr)
        back = model.inverse(lr, z)
        restored = model.upscale(model.downscale(hr))
    assert set(seen) == {torch.float32}
    for tensor in (lr, z, back, restored):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    assert largest_difference(back, hr) <= AUTOCAST_ROUND_TRIP
    with torch.no_grad():
        assert 0 < largest_difference(lr, model(hr)[0]) < 0.1  # bfloat16 was used, and did no harm


def test_copies_and_state_dicts_compute_the_same(model: InvertibleRescaler) -> None:
    hr = uniform(2, 3, 8, 8)
    fresh = InvertibleRescaler(4, blocks=1, subnet=SMALL).eval()
    fresh.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh):
        assert torch.equal(other.downscale(hr), model.downscale(hr))
        assert torch.equal(other.upscale(hr), model.upscale(hr))
        assert all(torch.equal(a, b) for a, b in zip(other(hr), model(hr), strict=True))


def test_a_pickled_rescaler_with_another_wavelet_computes_the_same() -> None:
    model, lr = _small(2, latent={"name": "wavelet", "wavelet": "db2"}), uniform(1, 3, 4, 4)
    assert torch.equal(pickle.loads(pickle.dumps(model)).upscale(lr), model.upscale(lr))


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
def test_memory_layout_does_not_matter(model: InvertibleRescaler, layout: str) -> None:
    hr = uniform(2, 3, 8, 12)
    other = (
        hr.contiguous(memory_format=torch.channels_last)
        if layout == "channels_last"
        else hr.transpose(2, 3).contiguous().transpose(2, 3)
    )
    assert not other.is_contiguous()
    with torch.no_grad():
        for got, wanted in zip(model(other), model(hr), strict=True):
            assert largest_difference(got, wanted) < SAME[torch.float32]
        assert largest_difference(model.inverse(*model(other)), hr) < ROUND_TRIP[torch.float32]


# The two calls for images


@given(
    scale=st.sampled_from((2, 4, 8)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=seeds,
    latent=st.sampled_from(("wavelet", "zero", "gaussian")),
)
@example(4, 1, 1, 0, "wavelet")
@example(4, 1, 4000, 0, "wavelet")
@example(4, 4000, 1, 0, "wavelet")
@example(4, 3, 5, 0, "wavelet")
@example(8, 1, 1, 0, "gaussian")
def test_any_size_goes_down_and_comes_back(
    scale: int, height: int, width: int, seed: int, latent: str
) -> None:
    model = _small(scale, latent=latent, subnet=SUBNETS["own"])
    hr = uniform(1, 3, height, width, seed=seed)
    lr = model.downscale(hr)
    assert lr.shape == (1, 3, math.ceil(height / scale), math.ceil(width / scale))
    sr = model.upscale(lr, size=(height, width))
    assert sr.shape == hr.shape
    for image in (lr, sr):
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert model.upscale(lr).shape == (1, 3, lr.shape[2] * scale, lr.shape[3] * scale)


@given(seed=seeds, dtype=st.sampled_from(DTYPES), bits=st.sampled_from((8, 8, 1, 10, 16)))
def test_lr_holds_exactly_what_a_file_stores(seed: int, dtype: torch.dtype, bits: int) -> None:
    steps = 2**bits - 1
    lr = _small(2).to(dtype).downscale(uniform(1, 3, 9, 14, seed=seed, dtype=dtype), bits=bits)
    assert lr.dtype == dtype
    assert torch.isin(lr, torch.arange(steps + 1, dtype=dtype) / steps).all()


def test_lr_survives_8_bits_unchanged(model: InvertibleRescaler) -> None:
    lr = model.downscale(uniform(1, 3, 20, 28))
    assert torch.equal(from_uint8(to_uint8(lr)), lr)


def test_downscale_repeats_the_last_row_and_column(model: InvertibleRescaler) -> None:
    hr = uniform(1, 3, 6, 7)
    rows, columns = [0, 1, 2, 3, 4, 5, 5, 5], [0, 1, 2, 3, 4, 5, 6, 6]
    padded = hr[:, :, rows][:, :, :, columns]
    assert torch.equal(model.downscale(hr), model.downscale(padded))


def test_upscale_is_the_inverse_of_the_models_own_latent(model: InvertibleRescaler) -> None:
    lr = model.downscale(uniform(2, 3, 8, 8))
    with torch.no_grad():
        expected = model.inverse(lr, model.latent(lr)).clamp(0, 1)
    assert torch.equal(model.upscale(lr), expected)


def test_the_true_latent_restores_what_quantising_left(model: InvertibleRescaler) -> None:
    hr = 0.1 + 0.8 * uniform(1, 3, 16, 16)
    with torch.no_grad():
        lr, z = model(hr)
    restored = model.upscale(lr.clamp(0, 1), latent=z)
    assert largest_difference(restored, hr) < 0.05 < largest_difference(model.upscale(lr.clamp(0, 1)), hr)


def test_neither_call_makes_a_graph(model: InvertibleRescaler) -> None:
    hr = uniform(1, 3, 8, 8).requires_grad_()
    assert not model.downscale(hr).requires_grad
    assert not model.upscale(hr).requires_grad


def test_an_unseeded_gaussian_follows_the_global_seed() -> None:
    model, lr = _small(latent="gaussian"), uniform(1, 3, 3, 3)
    assert not torch.equal(model.upscale(lr), model.upscale(lr))
    pair = []
    for _ in range(2):
        torch.manual_seed(11)
        pair.append(model.upscale(lr))
    assert torch.equal(*pair)


@pytest.mark.parametrize(("low", "high"), [(-1e-4, 1.0), (0.0, 1.0005)])
def test_rounding_beyond_the_range_is_forgiven(model: InvertibleRescaler, low: float, high: float) -> None:
    image = torch.full((1, 3, 8, 8), low)
    image[..., 0] = high
    assert model.downscale(image).shape == (1, 3, 2, 2)
    assert model.upscale(image).shape == (1, 3, 32, 32)


# Bad input

IMAGE = torch.full((1, 3, 8, 8), 0.5)
BAD_IMAGES = {
    "rank 3": (IMAGE[0], ShapeError, r"4-d tensor.*\(3, 8, 8\)"),
    "rank 5": (IMAGE[None], ShapeError, r"4-d tensor.*\(1, 1, 3, 8, 8\)"),
    "one channel": (IMAGE[:, :1], ShapeError, r"3 channels.*got 1"),
    "four channels": (torch.zeros(1, 4, 8, 8), ShapeError, r"3 channels.*got 4"),
    "empty": (IMAGE[..., :0], ShapeError, r"at least 1.*\(1, 3, 8, 0\)"),
    "8-bit": ((IMAGE * 255).to(torch.uint8), DtypeError, r"torch.uint8.*/ 255"),
    "integer": (IMAGE.long(), DtypeError, "torch.int64"),
    "half": (IMAGE.half(), DtypeError, "torch.float16"),
    "bfloat16": (IMAGE.bfloat16(), DtypeError, "torch.bfloat16"),
    "double": (IMAGE.double(), DtypeError, r"torch.float64.*weights are torch.float32"),
    "array": (IMAGE.numpy(), DtypeError, "ndarray"),
    "none": (None, DtypeError, "NoneType"),
}


@pytest.mark.parametrize("method", ["__call__", "forward_with_log_det", "downscale", "upscale"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_what_is_no_image_batch_is_named(model: InvertibleRescaler, method: str, kind: str) -> None:
    image, error, message = BAD_IMAGES[kind]
    with pytest.raises(error, match=message) as raised:
        getattr(model, method)(image)
    assert isinstance(raised.value, RescalingError)


def test_a_float_image_for_a_double_model_is_named(model: InvertibleRescaler) -> None:
    double = copy.deepcopy(model).double()
    for call in (double, double.downscale, double.upscale):
        with pytest.raises(DtypeError, match=r"torch.float32.*weights are torch.float64"):
            call(IMAGE)


@pytest.mark.parametrize("method", ["downscale", "upscale"])
@pytest.mark.parametrize(
    ("value", "shown"), [(255.0, "255"), (-0.5, "-0.5"), (math.nan, "nan"), (math.inf, "inf"), (1.01, "1.01")]
)
def test_values_outside_0_to_1_are_named(
    model: InvertibleRescaler, method: str, value: float, shown: str
) -> None:
    image = IMAGE.clone()
    image[0, 1, 2, 3] = value
    with pytest.raises(ValueRangeError, match=rf"\[0, 1\], got .*{shown}"):
        getattr(model, method)(image)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (8, 7), (1, 1), (2, 2)])
def test_the_bijection_refuses_sides_that_are_no_multiples(
    model: InvertibleRescaler, height: int, width: int
) -> None:
    for method in (model, model.forward_with_log_det):
        with pytest.raises(ShapeError, match=rf"multiples of 4.*{height}, {width}\).*downscale"):
            method(torch.zeros(1, 3, height, width))


LR = torch.full((2, 3, 2, 3), 0.5)
BAD_LATENTS = {
    "channels": (torch.zeros(2, 9, 2, 3), ShapeError, r"45 channels.*got 9"),
    "batch": (torch.zeros(1, 45, 2, 3), ShapeError, r"\(2, 3, 2, 3\).*\(1, 45, 2, 3\)"),
    "size": (torch.zeros(2, 45, 3, 2), ShapeError, r"\(2, 3, 2, 3\).*\(2, 45, 3, 2\)"),
    "rank": (torch.zeros(45, 2, 3), ShapeError, r"4-d tensor.*\(45, 2, 3\)"),
    "half": (torch.zeros(2, 45, 2, 3, dtype=torch.half), DtypeError, "torch.float16"),
    "double": (torch.zeros(2, 45, 2, 3, dtype=torch.float64), DtypeError, "torch.float64"),
    "array": (np.zeros((2, 45, 2, 3), np.float32), DtypeError, "ndarray"),
}


@pytest.mark.parametrize("kind", BAD_LATENTS)
def test_a_latent_that_does_not_fit_is_named(model: InvertibleRescaler, kind: str) -> None:
    z, error, message = BAD_LATENTS[kind]
    for call in (model.inverse, model.inverse_with_log_det, lambda lr, z: model.upscale(lr, latent=z)):
        with pytest.raises(error, match=message):
            call(LR, z)


def test_a_users_latent_module_of_another_shape_is_named() -> None:
    class Nothing(nn.Module):
        def forward(self, lr: Tensor) -> Tensor:
            return lr

    with pytest.raises(ShapeError, match=r"45 channels.*got 3"):
        _small(4, latent=Nothing()).upscale(LR)


@pytest.mark.parametrize(
    "size", [(9, 12), (4, 12), (8, 13), (8, 8), (0, 12), (-8, 12), (8.0, 12.0), (8,), (8, 12, 3), 8, "8x"]
)
def test_a_size_that_lr_cannot_come_from_is_named(model: InvertibleRescaler, size) -> None:
    with pytest.raises(ShapeError, match=r"size"):
        model.upscale(LR, size=size)


@pytest.mark.parametrize("size", [(5, 9), (8, 12), [7, 10], torch.Size((6, 11))])
def test_every_size_that_lr_can_come_from_is_taken(model: InvertibleRescaler, size) -> None:
    assert model.upscale(LR, size=size).shape[-2:] == tuple(size)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": 3}, ConfigError, "power of two of at least 2, got 3"),
        ({"scale": 1}, ConfigError, "got 1"),
        ({"scale": 4.0}, ConfigError, r"got 4\.0"),
        ({"scale": True}, ConfigError, "got True"),
        ({"channels": 0}, ConfigError, "channels must be an integer of at least 1, got 0"),
        ({"channels": "rgb"}, ConfigError, "got 'rgb'"),
        ({"blocks": (1,)}, ConfigError, r"each of 2 stages, got \(1,\)"),
        ({"blocks": (1, 1, 1)}, ConfigError, "each of 2 stages"),
        ({"blocks": -1}, ConfigError, "at least 0, got -1"),
        ({"blocks": (1, 1.5)}, ConfigError, r"got 1\.5"),
        ({"blocks": 2.5}, ConfigError, r"got 2\.5"),
        ({"blocks": None}, ConfigError, "got None"),
        ({"clamp": 0}, ConfigError, "clamp above 0, got 0"),
        ({"clamp": math.nan}, ConfigError, "got nan"),
        ({"subnet": "crbd"}, UnknownNameError, "did you mean 'crdb'"),
        ({"subnet": {"growth": 8}}, ConfigError, "needs a 'name'"),
        ({"subnet": 3}, ConfigError, "got 3"),
        ({"subnet": nn.Identity()}, ConfigError, "Identity"),
        ({"latent": "wavlet"}, UnknownNameError, "did you mean 'wavelet'"),
        ({"latent": {"wavelet": "haar"}}, ConfigError, "needs a 'name'"),
        ({"latent": ZeroLatent}, ConfigError, "ZeroLatent"),
        ({"latent": None}, ConfigError, "got None"),
        ({"latent": ZeroLatent(scale=2)}, ConfigError, "scale 2, not 4"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        InvertibleRescaler(**{"scale": 4, "blocks": 1, **options})


# Configuration


class Unregistered(Latent):
    def forward(self, lr: Tensor) -> Tensor:
        return lr.new_zeros(self._shape(lr))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 2, "channels": 1, "blocks": 3, "clamp": 0.5, "latent": "zero"},
        {"scale": 8, "blocks": (1, 0, 2), "subnet": "dense", "latent": "gaussian"},
        {"subnet": {"name": "rrdb", "growth": 4}, "latent": {"name": "wavelet", "wavelet": "db2"}},
        {"subnet": CRDB, "latent": WaveletLatent(correction="none")},
        {"subnet": DenseBlock, "latent": GaussianLatent(0.5, seed=3)},
        {"subnet": SUBNETS["crdb"], "latent": ZeroLatent()},
    ],
)
def test_the_configuration_rebuilds_the_model_through_json(options) -> None:
    model = randomize(InvertibleRescaler(**{"scale": 4, "blocks": 1, **options}))
    written = json.dumps(model.config)
    twin = InvertibleRescaler(**json.loads(written))
    assert json.dumps(twin.config) == written
    twin.load_state_dict(model.state_dict())
    lr = uniform(1, model.channels, 2, 3)
    torch.manual_seed(0)
    expected = model.upscale(lr)
    torch.manual_seed(0)
    assert torch.equal(twin.upscale(lr), expected)


def test_the_configuration_is_a_copy(model: InvertibleRescaler) -> None:
    model.config["subnet"]["growth"] = 99
    assert model.config["subnet"] == SMALL


def test_what_is_not_registered_has_no_configuration() -> None:
    with pytest.raises(ConfigError, match=r"subnet has no registered name.*register_subnet"):
        _ = InvertibleRescaler(2, blocks=1, subnet=SUBNETS["own"]).config
    with pytest.raises(ConfigError, match=r"latent has no registered name.*register_latent"):
        _ = InvertibleRescaler(2, blocks=1, latent=Unregistered()).config
    assert InvertibleRescaler(2, blocks=1, latent=Unregistered()).upscale(uniform(1, 3, 2, 2)).shape[-1] == 4


def test_a_model_without_couplings_takes_either_dtype() -> None:
    model = InvertibleRescaler(4, blocks=0)
    for dtype in DTYPES:
        assert model.downscale(uniform(1, 3, 5, 5, dtype=dtype)).dtype == dtype


def test_a_flow_that_only_goes_forward_still_shrinks() -> None:
    """As one in a wrapper does that has no ``inverse``."""

    class Wrapped(torch.nn.Module):
        def __init__(self, flow: torch.nn.Module) -> None:
            super().__init__()
            self.module = flow

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x)

    model, hr = InvertibleRescaler(2, blocks=1), torch.rand(1, 3, 8, 8)
    expected = model.downscale(hr)
    model.flow = Wrapped(model.flow)
    assert torch.equal(model.downscale(hr), expected)


def test_threads_and_batches_give_what_images_give_one_by_one() -> None:
    model = randomize(InvertibleRescaler(2, blocks=1)).eval()
    images = [uniform(1, 3, 20 + 4 * (index % 3), 24, seed=index) for index in range(24)]

    def there_and_back(image):
        lr = model.downscale(image)
        return lr, model.upscale(lr)

    with torch.no_grad():
        wanted = [there_and_back(image) for image in images]
        with ThreadPoolExecutor(4) as pool:
            for pair, one in zip(pool.map(there_and_back, images), wanted, strict=True):
                assert all(map(torch.equal, pair, one))
        # Up to rounding: how a convolution adds up depends on the batch.
        batch = model(torch.cat(images[::3]))
        singles = [model(image) for image in images[::3]]
        for side, part in enumerate(batch):
            assert largest_difference(part, torch.cat([pair[side] for pair in singles])) < SAME[torch.float32]
