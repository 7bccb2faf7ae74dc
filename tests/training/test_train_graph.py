"""The step that the host never waits for, against the eager loop, on a CPU, where it runs uncaptured."""

import itertools

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode

from invertible_rescaling import CRDB, DenseBlock, RescalingLoss, iirn_x2
from invertible_rescaling.images import from_uint8
from invertible_rescaling.testing import randomize
from invertible_rescaling.training import program
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.device import resolve_auto
from invertible_rescaling.training.graph import DeviceStep
from invertible_rescaling.training.objective import BothDirections
from invertible_rescaling.training.optimizers import make_optimizer, refresh_if_due
from invertible_rescaling.training.schedule import Average
from tests.pictures import pictures

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def train(tmp_path, capsys):
    data = pictures(tmp_path / "data", 3)

    def call(*arguments, out, steps=7):
        AcceleratorState._reset_state(reset_partial_state=True)
        fixed = ["--data", str(data), "--out", str(tmp_path / out), "--quiet", "--cpu", "--start", "none"]
        fixed += [
            "--blocks",
            "1",
            "--patch",
            "16",
            "--batch-size",
            "2",
            "--steps",
            str(steps),
            "--lr",
            "1e-3",
        ]
        code = program.main([*fixed, "--log-every", "3", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def poison(monkeypatch, *steps):
    """Let the loss of some steps be no number, counted from 1 in each run."""
    plain, count = BothDirections.forward, itertools.count(1)

    def forward(self, model, hr, lr):
        terms, sr = plain(self, model, hr, lr)
        return terms * (float("nan") if next(count) in steps else 1.0), sr

    monkeypatch.setattr(BothDirections, "forward", forward)


@pytest.mark.parametrize(
    ("model", "optimizer", "bad"),
    [
        ("iirn_x2", "soap", ()),
        ("irn_x2", "soap", (4,)),
        *(("iirn_x2", optimizer, (1, 5, 6)) for optimizer in ("soap", "adam", "adam-dct")),
    ],
)
def test_a_captured_run_ends_with_the_eager_loops_weights_to_the_last_bit(
    train, tmp_path, monkeypatch, model, optimizer, bad
) -> None:
    arguments = ("--model", model, "--optimizer", optimizer)
    for graph, out in (("off", "eager"), ("on", "graph")):
        with monkeypatch.context() as patch:
            poison(patch, *bad)
            assert train(*arguments, "--graph", graph, out=out)[0] == 0
    eager, graph = ((tmp_path / out / "last.safetensors").read_bytes() for out in ("eager", "graph"))
    assert eager == graph


def test_a_run_goes_on_the_other_way(train, tmp_path) -> None:
    for number, arguments in enumerate((("off",), ("on", "--stop-after", "3"), ("off",))):
        assert train("--model", "iirn_x2", "--graph", *arguments, out="cut" if number else "whole")[0] == 0
    whole, cut = ((tmp_path / out / "last.safetensors").read_bytes() for out in ("whole", "cut"))
    assert whole == cut


def test_steps_that_are_not_finite_are_told_when_the_log_is_written(train, monkeypatch) -> None:
    poison(monkeypatch, 5, 6)
    code, out, _ = train("--model", "iirn_x2", "--graph", "on", out="out")
    assert code == 0
    assert "step 6: loss nan or its gradient is not finite; 2 steps in a row skipped" in out


def test_a_run_that_is_lost_ends(train, monkeypatch) -> None:
    poison(monkeypatch, *range(1, 8))
    code, _, err = train("--model", "iirn_x2", "--graph", "on", "--max-skipped-steps", "3", out="out")
    assert code == 2
    assert "3 steps in a row without a finite gradient" in err


class _Waits(TorchDispatchMode):
    """Notes what makes a host wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["soap", "adam-dct"])  # Adam's fused kernel for CPUs reads its rate
def test_nothing_in_a_step_makes_the_host_wait(optimizer) -> None:
    model = randomize(iirn_x2(blocks=1), 0.3)
    loss, made = (
        RescalingLoss(1, 4, 0),
        make_optimizer(model, TrainingConfig(optimizer=optimizer, lr=1e-3), on_gpu=False),
    )

    def terms(hr, lr):
        return torch.stack([loss(model, from_uint8(hr)).total])

    step = DeviceStep(terms, model.parameters(), made, Average(model, 0.9), model, clip=0.1)
    hr = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    step(hr, None, 1e-3)  # makes the optimiser's state
    with _Waits() as waits:
        step(hr, None, 1e-3)
        step(hr, None, 1e-3)
    assert waits.found == []
    refresh_if_due(made, 2)
    with _Waits() as waits:
        float(step.norm)
    assert waits.found  # the check sees what it is to see


@pytest.mark.parametrize("network", [CRDB(9, 3), DenseBlock(9, 3), CRDB(9, 3, attention=False)])
def test_features_are_kept_in_autocasts_dtype(network) -> None:
    class Joined(TorchDispatchMode):
        dtypes: set[torch.dtype]

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket.__name__ == "cat":
                self.dtypes |= {tensor.dtype for tensor in args[0]}
            return function(*args, **(kwargs or {}))

    randomize(network, 0.5)
    x = torch.rand(1, 9, 16, 16)
    with Joined() as joined, torch.autocast("cpu", dtype=torch.bfloat16):
        joined.dtypes = set()
        half = network(x)
    assert joined.dtypes == {torch.bfloat16}
    torch.testing.assert_close(half.float(), network(x), rtol=5e-2, atol=5e-2)


def test_auto_is_a_graph_on_one_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    options, _ = resolve_auto(TrainingConfig(), CUDA)
    assert (options.graph, options.compile) == ("on", "off")
    assert resolve_auto(TrainingConfig(), CPU)[0].graph == "off"
    assert resolve_auto(TrainingConfig(reversible=True, compile="off"), CUDA)[0].graph == "off"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert resolve_auto(TrainingConfig(compile="off"), CUDA)[0].graph == "off"


@pytest.mark.parametrize(
    "options",
    [{"reversible": True}, {"gan": "srgan"}, {"precision": "fp16"}],
)
def test_what_cannot_be_a_graph_is_named(options) -> None:
    with pytest.raises(OptionError, match=rf"--graph on: .*--{next(iter(options))}.*give --graph off"):
        resolve_auto(TrainingConfig(graph="on", **options), CPU)


def test_a_step_that_cannot_be_captured_is_made_without(train, tmp_path, monkeypatch) -> None:
    def refuse(self, hr, lr, rate):
        self.optimizer.found_inf = torch.ones(())
        raise RuntimeError("operation not permitted when stream is capturing\nand a trace")

    assert train("--model", "iirn_x2", out="eager")[0] == 0
    monkeypatch.setattr(DeviceStep, "__call__", refuse)
    code, out, _ = train("--model", "iirn_x2", "--graph", "on", out="out")
    assert code == 0
    made, eager = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("out", "eager"))
    assert made == eager
    assert "going on without a CUDA graph: operation not permitted when stream is capturing\n" in out
