"""CUDA graphs of a flow: on a CPU by a stand-in that runs again what it captured, on a GPU in earnest."""

import threading

import pytest
import torch

from invertible_rescaling import iirn_x2, iirn_x4
from invertible_rescaling.engines import CudaGraphs, cuda_graphs
from invertible_rescaling.engines.cuda_graphs import _Captured
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.testing import randomize


class Stand(CudaGraphs):
    """Captures on a CPU: a replay runs again and writes where the first run wrote."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.captures = self.replays = 0

    def _capture(self, run, state):
        self.captures += 1
        given = state.clone()
        made = torch.full_like(run(given), torch.nan)

        def replay() -> None:
            self.replays += 1
            made.copy_(run(given))

        return _Captured(given, replay, made)

    def _replayed(self, captured, state):
        captured.given.copy_(state)
        captured.replay()
        return captured.made.clone()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return randomize(iirn_x2(blocks=1), 0.3).eval()


@pytest.fixture
def stand(model, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_can_capture", lambda state: True)
    return Stand(model, graphs=2)


def test_the_second_call_of_a_shape_captures_and_later_ones_replay(model, stand) -> None:
    fast = model.with_engine(stand)
    images = [torch.rand(1, 3, 18, 21) for _ in range(4)]
    made = [fast.downscale(hr) for hr in images]
    assert (stand.captures, stand.replays) == (1, 3)
    for hr, lr in zip(images, made, strict=True):
        assert torch.equal(lr, model.downscale(hr))
        assert torch.equal(fast.upscale(lr, (18, 21)), model.upscale(lr, (18, 21)))
    assert stand.captures == 2


def test_a_result_is_the_callers_own(model, stand) -> None:
    fast = model.with_engine(stand)
    first, second = torch.rand(2, 1, 3, 8, 8)
    for _ in range(2):
        fast.downscale(first)
    kept = fast.downscale(first)
    before = kept.clone()
    fast.downscale(second)
    assert torch.equal(kept, before)


def test_the_shape_that_was_not_used_for_longest_goes(model, stand) -> None:
    fast = model.with_engine(stand)
    for side in (8, 8, 10, 10, 8, 12, 12, 8):  # 10 goes for 12
        fast.downscale(torch.rand(1, 3, side, side))
    assert stand.captures == 3
    for _ in range(2):
        fast.downscale(torch.rand(1, 3, 10, 10))
    assert stand.captures == 4


def test_precision_is_a_graph_of_its_own(model, stand) -> None:
    fast, hr = model.with_engine(stand), torch.rand(1, 3, 16, 16)
    whole = [fast.downscale(hr) for _ in range(3)][-1]
    half = [fast.downscale(hr, precision="bf16") for _ in range(3)][-1]
    assert stand.captures == 2
    assert torch.equal(whole, model.downscale(hr))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(half, model.downscale(hr))


def test_weights_may_change_in_place_and_be_replaced(model, stand) -> None:
    fast, hr = model.with_engine(stand), torch.rand(1, 3, 16, 16)
    for _ in range(3):
        fast.downscale(hr)
    weight = model.flow[1].phi.last.weight
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(fast.downscale(hr), model.downscale(hr))
    assert stand.captures == 1
    weight.data = weight.data * 0.5
    assert torch.equal(fast.downscale(hr), model.downscale(hr))
    for _ in range(2):
        fast.downscale(hr)
    assert stand.captures == 2


def test_gradients_go_by_pytorch(model, stand) -> None:
    fast, hr = model.with_engine(stand), torch.rand(1, 3, 16, 16)
    for _ in range(3):
        lr, z = fast(hr)
        (lr.sum() + z.square().sum() + fast.inverse(lr, z).sum()).backward()
    assert stand.captures == 0
    assert all(weight.grad is not None for weight in model.parameters())


def test_what_cannot_be_captured_is_run_and_said_once(model, stand, monkeypatch) -> None:
    def refuse(run, state):
        raise RuntimeError("operation not permitted when stream is capturing\nand a trace")

    monkeypatch.setattr(stand, "_capture", refuse)
    fast, hr = model.with_engine(stand), torch.rand(1, 3, 16, 16)
    fast.downscale(hr)
    with pytest.warns(RuntimeWarning, match="without CUDA graphs: operation not permitted when"):
        made = fast.downscale(hr)
    assert torch.equal(made, model.downscale(hr))
    assert torch.equal(fast.downscale(hr), made)


def test_an_engine_serves_tiles_with_an_overlap_and_threads(model, stand) -> None:
    fast, hr = model.with_engine(stand), torch.rand(1, 3, 48, 64)
    tiles = {"tile": 16, "overlap": 8}
    assert torch.equal(fast.downscale(hr, **tiles), model.downscale(hr, **tiles))
    assert stand.replays > 2
    made: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: made.append(fast.downscale(hr))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(lr, model.downscale(hr)) for lr in made)
    assert len(made) == 4


def test_without_an_engine_and_on_a_cpu_the_flow_runs_as_it_is(model) -> None:
    fast, hr = model.with_engine(CudaGraphs(model)), torch.rand(1, 3, 17, 16)
    for _ in range(3):
        assert torch.equal(fast.downscale(hr), model.downscale(hr))
    assert fast.with_engine(None)._engine is None
    assert next(fast.parameters()) is next(model.parameters())


@pytest.mark.parametrize("direction", ["downscale", "upscale"])
def test_precision_enters_autocast_and_leaves_it(model, direction) -> None:
    image = (torch.rand(1, 3, 16, 16) * 255).round() / 255
    call = getattr(model, direction)
    with torch.autocast("cpu", torch.bfloat16):
        half = call(image)
        whole = call(image, precision="fp32")
    assert torch.equal(whole, call(image))
    assert torch.equal(call(image, precision="bf16"), half)
    assert half.dtype == torch.float32
    assert direction == "downscale" or not torch.equal(whole, half)  # LR is rounded
    with pytest.raises(ConfigError, match=r"precision must be one of fp32, bf16, got 'fp64'"):
        call(image, precision="fp64")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_replays_equal_the_flow(precision) -> None:
    torch.manual_seed(0)
    model = randomize(iirn_x4(blocks=2), 0.3).eval().cuda()
    fast = model.with_engine(CudaGraphs(model))
    for side in ((64, 96), (40, 36), (64, 96), (40, 36), (64, 96), (40, 36)):
        hr = torch.rand(2, 3, *side, device="cuda")
        lr = fast.downscale(hr, precision=precision)
        sr = fast.upscale(lr, side, precision=precision)
        wanted = model.downscale(hr, precision=precision)
        assert (lr - wanted).abs().max() < 1.5 / 255
        torch.testing.assert_close(sr, model.upscale(lr, side, precision=precision), atol=1e-2, rtol=0)
