"""What is decided by the machine: precision, compiling, where images are kept, and going on elsewhere."""

import sys

import pytest
import torch

from invertible_rescaling import RescalingLoss, iirn_x2, iirn_x4, srcnn_x4
from invertible_rescaling.testing import randomize
from invertible_rescaling.training import ImagePair, device as machine
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.device import (
    compile_model,
    compiler_problem,
    device_for_images,
    resolve_auto,
)
from invertible_rescaling.training.prefetch import Prefetched

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that says what it is told to, as far as these decisions ask."""

    def make(*, bf16=True, problem=None, free=10**9):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
        monkeypatch.setattr(machine, "compiler_problem", lambda device: problem)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))

    return make


def test_on_a_cpu_auto_is_float32_and_not_compiled():
    options, said = resolve_auto(TrainingConfig(), CPU)
    assert (options.precision, options.compile, said) == ("no", "off", [])


def test_on_a_gpu_auto_is_bf16_and_compiled_where_there_is_no_graph(gpu):
    gpu()
    options, said = resolve_auto(TrainingConfig(graph="off"), CUDA)
    assert (options.precision, options.compile, said) == ("bf16", "on", [])
    gpu(bf16=False)
    assert resolve_auto(TrainingConfig(), CUDA)[0].precision == "no"


def test_what_is_asked_for_is_kept(gpu):
    gpu()
    options, _ = resolve_auto(TrainingConfig(precision="fp16", compile="off"), CUDA)
    assert (options.precision, options.compile) == ("fp16", "off")


def test_without_a_compiler_auto_says_so_and_on_is_an_error(gpu):
    gpu(problem="InductorError: no Triton")
    options, said = resolve_auto(TrainingConfig(graph="off"), CUDA)
    assert options.compile == "off"
    assert "no Triton" in said[0]
    with pytest.raises(OptionError, match=r"--compile on.*no Triton.*--compile off"):
        resolve_auto(TrainingConfig(compile="on"), CUDA)


def test_a_compiler_that_fails_is_described_in_one_line(monkeypatch):
    def broken(function):
        raise RuntimeError("no compiler\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    assert compiler_problem(CPU) == "RuntimeError: no compiler"


def images(count=2):
    return [ImagePair(torch.zeros(3, 10, 10, dtype=torch.uint8)) for _ in range(count)]


def test_images_go_to_the_gpu_where_they_fit_well(gpu):
    said = []
    gpu(free=2001)
    assert device_for_images("auto", images(), CUDA, said.append) == CUDA
    gpu(free=1999)
    assert device_for_images("auto", images(), CUDA, said.append) is None
    assert "may take 30%" in said[-1]
    assert device_for_images("device", images(), CUDA, said.append) == CUDA
    gpu(free=599)
    with pytest.raises(OptionError, match="--images-on cpu"):
        device_for_images("device", images(), CUDA, said.append)
    for wish, device in (("cpu", CUDA), ("auto", CPU), ("device", CPU), ("auto", torch.device("mps"))):
        assert device_for_images(wish, images(), device, said.append) is None


# Of the compiler's own, wherever it begins behind a tensor that is no leaf; torch shows it once a process.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_networks_give_the_same_gradients_and_share_what_is_compiled(monkeypatch, autocast):
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph

    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: plain(function, backend=backend, **how))
    model = randomize(iirn_x2(blocks=3), gain=0.5)
    hr = torch.rand(2, 3, 16, 16)

    def gradients():
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            RescalingLoss(1, 4, 0)(model, hr).total.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    wanted = gradients()
    compile_model(model)
    for mine, theirs in zip(gradients(), wanted, strict=True):
        assert torch.linalg.norm(mine - theirs) <= (5e-2 if autocast else 1e-4) * torch.linalg.norm(theirs)
    assert 0 < len(compiled) < 9  # three networks each of three couplings
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_networks_are_recomputed_by_reversible_backpropagation(monkeypatch):
    """Four couplings keep a quarter of what plain backpropagation does, compiled or not."""
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: plain(function, backend="eager", **how))
    model = randomize(iirn_x2(blocks=4), gain=0.5)
    hr = torch.rand(1, 3, 48, 48)
    stored = bytes_kept_for_backward(model, hr)
    model.enable_reversible_backprop()
    reversible = bytes_kept_for_backward(model, hr)
    compile_model(model)
    assert bytes_kept_for_backward(model, hr) == reversible < stored / 4
    torch._dynamo.reset()


def bytes_kept_for_backward(model, hr) -> int:
    """The tensors, other than parameters, that a step's forward pass saves."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = RescalingLoss(1, 4, 0)(model, hr).total
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    total.backward()
    return sum(kept.values())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_each_stage_is_compiled_for_its_own_size(monkeypatch):
    """Stages share their code, and a second size would otherwise be compiled for sizes that vary."""
    symbolic = []

    def backend(graph, inputs):
        sizes = [size for value in inputs if isinstance(value, torch.Tensor) for size in value.shape]
        symbolic.append([value for value in [*inputs, *sizes] if isinstance(value, torch.SymInt)])
        return graph

    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: plain(function, backend=backend, **how))
    torch._dynamo.reset()
    model = compile_model(iirn_x4(blocks=1))
    RescalingLoss(1, 4, 0)(model, torch.rand(2, 3, 32, 32)).total.backward()
    assert len(symbolic) >= 4  # two stages, two shapes of networks each
    assert not any(symbolic)
    torch._dynamo.reset()


def test_a_super_resolver_is_compiled_whole(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda method, **how: compiled.append(method) or method)
    model = compile_model(srcnn_x4())
    assert [method.__self__ for method in compiled] == [model]


def test_batches_ahead_are_those_that_were_asked_for():
    made = []

    def batch_at(step, rank):
        made.append((step, rank))
        return torch.tensor([step, rank]), None

    batches = Prefetched(batch_at, pin=False)
    for step, rank in ((5, 1), (6, 1), (7, 1), (3, 1), (4, 0), (5, 0)):
        assert batches.batch_at(step, rank)[0].tolist() == [step, rank]
    batches._pool.shutdown()
    assert made.count((6, 1)) == made.count((7, 1)) == 1


def test_an_error_in_a_batch_ahead_comes_when_it_is_asked_for():
    def batch_at(step, rank):
        if step == 1:
            raise ValueError("torn")
        return torch.tensor([step]), None

    batches = Prefetched(batch_at, pin=False)
    batches.batch_at(0, 0)
    with pytest.raises(ValueError, match="torn"):
        batches.batch_at(1, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as torch imports its compiler
@pytest.mark.skipif(sys.platform == "win32", reason="a C++ compiler is not at hand there")
def test_the_compiler_of_this_machine_is_found():
    assert compiler_problem(CPU) is None
