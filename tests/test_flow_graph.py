"""Flows as ONNX graphs, written layer by layer, against the layers themselves."""

from functools import partial

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from invertible_rescaling import (
    CRDB,
    RRDB,
    AdditiveCoupling,
    AffineCoupling,
    Conv,
    DenseBlock,
    HaarDownsampling,
    InvertibleRescaler,
    InvertibleSequential,
)
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.export import Downscale, Upscale, export_onnx
from invertible_rescaling.export.flow_graph import add_flow, obstacle
from invertible_rescaling.export.graph import Graph
from invertible_rescaling.testing import randomize
from tests.strategies import uniform


class Mine(nn.Sequential):
    def __init__(self, ins: int, outs: int) -> None:
        super().__init__(nn.Conv2d(ins, outs, 3, padding=1), nn.Tanh())


def _run(flow: InvertibleSequential, state: torch.Tensor, *, inverse: bool) -> torch.Tensor:
    graph, channels = Graph(18), state.shape[1]
    made = add_flow(graph, flow, "x", channels, torch.float32, inverse=inverse)
    shape = ("b", None, None, None)
    file = graph.model(made, ("x", shape), ("y", shape), torch.float32)
    onnx.checker.check_model(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(file.SerializeToString(), options)
    return torch.from_numpy(session.run(None, {"x": state.numpy()})[0])


@pytest.mark.parametrize(
    "subnet",
    [
        Conv,
        DenseBlock,
        RRDB,
        partial(CRDB, growth=5, dilation=3),
        partial(CRDB, growth=8, attention=False),
        lambda ins, outs: RRDB(ins) if ins == outs else Conv(ins, outs),
    ],
    ids=["conv", "dense", "rrdb", "crdb", "crdb without attention", "rrdb without projection"],
)
@pytest.mark.parametrize("inverse", [False, True])
def test_a_graph_makes_what_the_layers_make(subnet, inverse) -> None:
    torch.manual_seed(0)
    layers = [
        HaarDownsampling(2),
        AffineCoupling(8, 2, subnet, clamp=0.7),
        AffineCoupling(8, 4, subnet),  # of other halves
        AdditiveCoupling(8, 4, subnet),
        HaarDownsampling(8),
        AdditiveCoupling(32, 2, subnet),
    ]
    flow = randomize(InvertibleSequential(*layers), 0.4).eval()
    state = uniform(2, 2, 12, 20)
    with torch.no_grad():
        state = flow(state) if inverse else state
        wanted = flow.inverse(state) if inverse else flow(state)
    made = _run(flow, state, inverse=inverse)
    torch.testing.assert_close(made, wanted, atol=2e-5, rtol=1e-5)


def test_what_cannot_be_written_down_is_named() -> None:
    def why(*layers) -> str | None:
        return obstacle(InvertibleSequential(*layers))

    assert why(HaarDownsampling(3), AffineCoupling(12, 3, CRDB)) is None
    assert why(AffineCoupling(12, 3, Mine)) == "has sub-networks of class Mine"
    assert why(AffineCoupling(12, 3, CRDB, condition_channels=2)) == "has couplings that take a condition"
    nested = InvertibleSequential(HaarDownsampling(3))
    assert why(nested) == "has a layer of class InvertibleSequential"
    coupling = AffineCoupling(12, 3, CRDB)
    coupling.phi.register_forward_hook(lambda *_: None)
    assert "forward hook" in (why(coupling) or "")

    class Other(InvertibleSequential):
        pass

    assert obstacle(Other(HaarDownsampling(3))) == "is of class Other"
    flow = InvertibleSequential(AffineCoupling(12, 3, Mine))
    with pytest.raises(
        ConfigError, match=r"only flows of this library's own layers .*; this one has sub-net"
    ):
        add_flow(Graph(18), flow, "x", 12, torch.float32, inverse=False)


@pytest.mark.parametrize("direction", [Downscale, Upscale])
def test_models_with_sub_networks_of_ones_own_are_traced(direction, tmp_path) -> None:
    torch.manual_seed(0)
    module = direction(InvertibleRescaler(2, blocks=1, subnet=Mine).eval())
    export_onnx(module, tmp_path / "mine.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "mine.onnx")
    image = uniform(1, 3, 9, 12)
    (made,) = session.run(None, {module.argument: image.numpy()})
    wanted = module(image)
    assert wanted.shape == made.shape
    assert (torch.from_numpy(made) - wanted).abs().max() < 1.5 / 255
