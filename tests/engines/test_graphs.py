"""ONNX Runtime and OpenVINO in place of PyTorch: the same pictures."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from invertible_rescaling import (
    InvertibleRescaler,
    create_model,
    iirn_x4,
    linear_x2,
    linear_x4,
)
from invertible_rescaling.engines import OnnxRuntime, create_engine, graphs, list_engines
from invertible_rescaling.errors import ConfigError, DtypeError, MissingDependencyError, UnknownNameError
from invertible_rescaling.images import from_uint8
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.data import photograph
from tests.strategies import uniform
from tests.tolerances import ENGINE_LR_SAME, ONNX_SR

ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def model() -> InvertibleRescaler:
    torch.manual_seed(0)
    return randomize(iirn_x4(blocks=1), 0.3).eval()


@pytest.fixture(scope="module", params=ENGINES)
def fast(request, model) -> InvertibleRescaler:
    return model.with_engine(create_engine(request.param, model))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("member", "picture"),
    [
        ("linear_x4", "astronaut"),
        ("small_x4", "chelsea"),
        ("linear_x2", "coffee"),
        pytest.param("iirn_x4", "chelsea", marks=pytest.mark.slow),
        pytest.param("iirn_x2", "coffee", marks=pytest.mark.slow),
        pytest.param("irn_x2", "astronaut", marks=pytest.mark.slow),
    ],
)
def test_photographs_come_out_the_same(name, member, picture) -> None:
    model = create_model(member, weights="DEFAULT").eval()
    fast = model.with_engine(create_engine(name, model))
    hr = from_uint8(photograph(picture)).unsqueeze(0)
    lr, made = model.downscale(hr), fast.downscale(hr)
    assert float((made == lr).float().mean()) >= ENGINE_LR_SAME
    assert float((made - lr).abs().max()) < 1.5 / 255
    size = tuple(hr.shape[2:])
    assert float((fast.upscale(lr, size) - model.upscale(lr, size)).abs().max()) <= ONNX_SR


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 3, 17, 30), (2, 3, 64, 12), (0, 3, 8, 8)])
def test_any_batch_and_size_goes_in_any_order(fast, model, shape) -> None:
    hr = uniform(*shape)
    lr = fast.downscale(hr)
    assert lr.shape == model.downscale(hr).shape
    assert bool(((lr - model.downscale(hr)).abs() < 1.5 / 255).all())
    torch.testing.assert_close(fast.upscale(lr), model.upscale(lr), atol=1e-4, rtol=0)
    state = torch.nn.functional.pad(hr, (0, -shape[3] % 4, 0, -shape[2] % 4))
    with torch.no_grad():
        for found, wanted in zip(fast(state), model(state), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_tiles_go_by_the_engine_too(fast, model) -> None:
    hr = uniform(1, 3, 40, 56)
    tiles = {"tile": 16, "overlap": 8}
    lr = model.downscale(hr, **tiles)
    assert bool(((fast.downscale(hr, **tiles) - lr).abs() < 1.5 / 255).all())
    torch.testing.assert_close(fast.upscale(lr, **tiles), model.upscale(lr, **tiles), atol=1e-4, rtol=0)
    assert torch.equal(fast.downscale(hr, tile=16), model.downscale(hr, tile=16))  # PyTorch's, as stated


def test_layouts_and_threads_do_not_matter(fast) -> None:
    images = [uniform(1, 3, 16 + 4 * i, 24) for i in range(6)]
    wanted = [fast.downscale(hr) for hr in images]
    for hr, lr in zip(images, wanted, strict=True):
        assert torch.equal(fast.downscale(hr.contiguous(memory_format=torch.channels_last)), lr)
    with ThreadPoolExecutor(3) as pool:
        for made, lr in zip(pool.map(fast.downscale, images), wanted, strict=True):
            assert torch.equal(made, lr)


def test_copies_and_pickles_leave_the_engine_behind(fast, model) -> None:
    hr = uniform(1, 3, 8, 8)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(other.downscale(hr), model.downscale(hr))
        assert next(other.parameters()) is not next(model.parameters())


def test_gradients_go_by_pytorch(fast, model) -> None:
    hr = uniform(1, 3, 16, 16)
    lr, _ = fast(hr)
    assert lr.requires_grad
    assert torch.equal(lr, model(hr)[0])


@pytest.mark.parametrize("name", ENGINES)
def test_weights_that_change_are_noticed(name) -> None:
    model, hr = linear_x2(weights="DEFAULT").eval(), uniform(1, 3, 8, 8)
    fast = model.with_engine(create_engine(name, model))
    fast.downscale(hr)
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    with pytest.raises(
        ConfigError, match=r"the weights have changed since the engine .* was made; make another"
    ):
        fast.downscale(hr)
    again = model.with_engine(create_engine(name, model))
    assert bool(((again.downscale(hr) - model.downscale(hr)).abs() < 1.5 / 255).all())


def test_what_an_engine_cannot_run_is_refused() -> None:
    class Mine(nn.Conv2d):
        def __init__(self, ins: int, outs: int) -> None:
            super().__init__(ins, outs, 1)

    with pytest.raises(
        ConfigError, match=r"'onnxruntime' runs flows .*; this one has sub-networks of class M"
    ):
        OnnxRuntime(InvertibleRescaler(2, blocks=1, subnet=Mine))
    with pytest.raises(DtypeError, match=r"computes in float32, the weights are torch\.float64"):
        OnnxRuntime(linear_x2().double())
    with pytest.raises(ConfigError, match="runs on the CPU, the model is on meta"):
        OnnxRuntime(linear_x2().to("meta"))
    model = linear_x2().eval()
    engine = OnnxRuntime(model)
    with pytest.raises(DtypeError, match=r"takes float32 on the CPU, got torch\.float64"):
        engine(torch.rand(1, 3, 4, 4).double(), inverse=False)
    with pytest.raises(UnknownNameError, match="no engine 'tensorrt'; there are torch, cudagraphs"):
        create_engine("tensorrt", model)


def test_missing_packages_are_named(monkeypatch) -> None:
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    for name, extra in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        with pytest.raises(MissingDependencyError, match=rf"needs onnx and {name}: .*\[{extra}\]"):
            create_engine(name, linear_x4())


def test_engines_are_listed() -> None:
    assert list_engines() == ["torch", "cudagraphs", "onnxruntime", "openvino"]
    assert {"torch", "onnxruntime", "openvino"} <= set(list_engines(installed=True))
    assert ("cudagraphs" in list_engines(installed=True)) == torch.cuda.is_available()
    assert create_engine("torch", linear_x4()) is None
