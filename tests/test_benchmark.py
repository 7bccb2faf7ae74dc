"""The benchmark: that it runs, and that what it compares with computes the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from strategies import uniform

import benchmark
from benchmark import options_of
from benchmarking.children import OUT_OF_MEMORY, in_a_process
from benchmarking.failure import MeasurementError
from benchmarking.inference import photograph
from benchmarking.naive import NaiveRescaler
from benchmarking.official import OfficialRescaler
from benchmarking.timing import PeakMemory, medians
from invertible_rescaling import create_model
from invertible_rescaling.testing import randomize
from invertible_rescaling.weights import weights_of

SMALL = ["--size", "40", "48", "--batch", "1", "--patch", "32", "--blocks", "1", "--repeats", "1"]


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["iirn_x4", "irn_x2"])
def test_the_naive_network_computes_the_same(name: str) -> None:
    model = randomize(create_model(name, blocks=1), 0.5).eval()
    naive, hr = NaiveRescaler(model), uniform(2, 3, 32, 40)
    lr, z = model(hr)
    torch.testing.assert_close(naive(hr), (lr, z), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(naive.inverse(lr, z), hr, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_inference_training_and_import_are_measured(tmp_path, capsys) -> None:
    out = tmp_path / "figures.json"
    assert benchmark.main(["inference", "training", "import", *SMALL, "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert [row["model"] for row in figures["inference"]] == ["irn_x4, naive", "iirn_x4", "irn_x4"]
    assert [row["step"] for row in figures["training"]] == ["naive", "plain", "checkpoint", "reversible"]
    assert figures["training"][1]["over plain"] == 1
    package, model = figures["import"]
    assert 0 < package["import adds ms"] < model["import adds ms"] < model["while compiling ms"]
    assert "| iirn_x4 |" in capsys.readouterr().out


def test_optimizers_are_measured_in_turns(tmp_path) -> None:
    out = tmp_path / "figures.json"
    assert benchmark.main(["optimizers", *SMALL, "--threads", "1", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["optimizers"]
    assert [row["optimizer"] for row in rows] == ["adam", "adam-dct", "soap"]
    assert all(row["s"] > 0 for row in rows)
    assert rows[0]["over adam"] == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_and_tiles_are_measured(tmp_path) -> None:
    out = tmp_path / "figures.json"
    threads = torch.get_num_threads()
    command = ["tiles", *SMALL, "--side", "64", "--tile", "32", "--threads", "1", "--json", str(out)]
    try:
        assert benchmark.main(command) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads(out.read_text())["tiles"]
    assert [row["direction"] for row in rows] == ["down", "up", "down, exact", "up, exact"]
    with PeakMemory(torch.device("cpu")) as used:
        held = torch.ones(2**27)  # large beside what the process may give back meanwhile
    assert used.bytes >= 0.9 * held.nbytes


@pytest.mark.slow
def test_seams_are_measured(tmp_path) -> None:
    out = tmp_path / "figures.json"
    assert benchmark.main(["seams", "--size", "160", "140", "--threads", "1", "--json", str(out)]) == 0
    exact, *independent = json.loads(out.read_text())["seams"]
    assert exact["overlap"] == "exact"
    assert exact["largest change of LR"] <= 1
    assert exact["LR values changed %"] <= 0.1
    assert abs(exact["PSNR change dB"]) < 0.01
    assert exact["largest change of SR"] < 0.1 or exact["LR values changed %"] > 0
    assert independent[0]["largest change of SR"] > 1
    assert independent[0]["largest change of SR"] > independent[-1]["largest change of SR"]


@pytest.mark.slow
def test_half_precision_is_compared_with_float32(tmp_path) -> None:
    out = tmp_path / "figures.json"
    benchmark.main(["inference", *SMALL, "--precision", "bf16", "--models", "iirn_x4", "--json", str(out)])
    row = json.loads(out.read_text())["inference"][1]
    assert 0 < row["LR within a step"] <= 1
    assert row["PSNR change dB"] != 0


def test_speed_is_measured_and_drawn(tmp_path, capsys) -> None:
    out, picture = tmp_path / "figures.json", tmp_path / "speed.png"
    command = ["speed", "--size", "40", "48", "--repeats", "1", "--models", "linear_x2", "linear_x4"]
    engines = ["--engines", "torch", "onnxruntime", "--draw", str(picture), "--json", str(out)]
    assert benchmark.main([*command, *engines]) == 0
    rows = json.loads(out.read_text())["speed"]
    assert {(row["model"], row["engine"]) for row in rows} == {
        (model, engine) for model in ("linear_x2", "linear_x4") for engine in ("torch", "onnxruntime")
    }
    assert all(row["down MP/s"] > 0 < row["up MP/s"] for row in rows)
    stated = weights_of("linear_x4").DEFAULT.value.metrics["BSD100"]["psnr_rgb"]
    assert {row["BSD100 dB"] for row in rows if row["scale"] == 4} == {stated}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| linear_x4 |" in capsys.readouterr().out


_AUTHORS_PROGRAM = """
import torch
from torch import nn
from torch.nn import functional as F


class Haar(nn.Module):
    def __init__(self, channels):
        super().__init__()
        rows = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
        bank = torch.tensor(rows, dtype=torch.float32).reshape(4, 1, 2, 2)
        self.haar_weights = nn.Parameter(bank.repeat_interleave(channels, 0), requires_grad=False)

    def forward(self, x, rev):
        channels = len(self.haar_weights) // 4
        if rev:
            groups = x.reshape(len(x), 4, channels, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
            bank = self.haar_weights.reshape(4, channels, 1, 2, 2).transpose(0, 1).flatten(0, 1)
            return F.conv_transpose2d(groups, bank, stride=2, groups=channels)
        return F.conv2d(x.repeat(1, 4, 1, 1), self.haar_weights, stride=2, groups=4 * channels) / SHARE


class Coupling(nn.Module):
    def __init__(self, subnet, channels, split):
        super().__init__()
        self.split = split
        rest = channels - split
        self.F, self.G, self.H = subnet(rest, split), subnet(split, rest), subnet(split, rest)

    def forward(self, x, rev):
        a, b = x[:, : self.split], x[:, self.split :]
        if not rev:
            a = a + self.F(b)
        scale = torch.exp(2 * torch.sigmoid(self.H(a)) - 1)
        b = (b - self.G(a)) / scale if rev else b * scale + self.G(a)
        return torch.cat((a - self.F(b) if rev else a, b), 1)


class InvRescaleNet(nn.Module):
    def __init__(self, channels, split, subnet, blocks, stages):
        super().__init__()
        self.operations = nn.ModuleList()
        for count in blocks[:stages]:
            self.operations.append(Haar(channels))
            channels *= 4
            self.operations.extend(Coupling(subnet, channels, split) for _ in range(count))

    def forward(self, x, rev=False):
        for operation in list(self.operations)[:: -1 if rev else 1]:
            x = operation(x, rev)
        return x
"""
_AUTHORS_SUBNETS = """
import torch
from torch import nn
from torch.nn import functional as F
from models.modules import Inv_arch


class Dense(nn.Module):
    def __init__(self, wide, out):
        super().__init__()
        for number, filters in enumerate((32, 32, 32, 32, out)):
            setattr(self, f"conv{number + 1}", nn.Conv2d(wide + 32 * number, filters, 3, padding=1))

    def forward(self, x):
        for number in range(1, 5):
            x = torch.cat((x, F.leaky_relu(getattr(self, f"conv{number}")(x), 0.2)), 1)
        return self.conv5(x)


def subnet(structure, start):
    return Dense
"""


def _authors_program(folder: Path, share: str = "4") -> Path:
    """A folder that looks like the original authors' repository, with the same network written anew."""
    modules = folder / "codes" / "models" / "modules"
    modules.mkdir(parents=True)
    (modules / "Inv_arch.py").write_text(_AUTHORS_PROGRAM.replace("SHARE", share))
    (modules / "Subnet_constructor.py").write_text(_AUTHORS_SUBNETS)
    return folder


def test_the_authors_program_takes_turns_where_its_folder_is_given(tmp_path) -> None:
    folder, out = _authors_program(tmp_path / "theirs"), tmp_path / "figures.json"
    command = ["inference", *SMALL, "--models", "irn_x4", "--threads", "1", "--official", str(folder)]
    assert benchmark.main([*command, "--json", str(out)]) == 0
    _, authors, ours = json.loads(out.read_text())["inference"]
    assert authors["model"] == "irn_x4, its authors' program"
    factor = (authors["down s"] + authors["up s"]) / (ours["down s"] + ours["up s"])
    assert ours["times as fast as irn_x4, its authors' program"] == pytest.approx(factor)
    assert not any(name.partition(".")[0] == "models" for name in sys.modules)


def test_the_authors_program_brings_back_what_it_shrank(tmp_path) -> None:
    model = randomize(create_model("irn_x4", blocks=1), 0.3).eval()
    program, hr = OfficialRescaler(_authors_program(tmp_path), model), uniform(1, 3, 32, 40)
    torch.testing.assert_close(program.network(program.network(hr), rev=True), hr, atol=1e-4, rtol=0)
    torch.testing.assert_close(program.downscale(hr), model.downscale(hr))
    assert program.upscale(model.downscale(hr)).shape == hr.shape


@pytest.mark.parametrize("kind", ["another network", "nothing"])
def test_a_folder_without_the_authors_program_is_refused(tmp_path, capsys, kind: str) -> None:
    folder = _authors_program(tmp_path, share="2") if kind == "another network" else tmp_path
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["inference", *SMALL, "--official", str(folder)])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    message = "computes another LR" if kind == "another network" else "holds no clone of github.com/pkuxmq"
    assert message in said.err.splitlines()[-1]


def test_a_measurement_that_fails_ends_with_one_line(tmp_path, capsys, monkeypatch) -> None:
    def fail(options: object) -> None:
        raise RuntimeError("a device fell off\nand more of it")

    out = tmp_path / "figures.json"
    monkeypatch.setitem(benchmark.PARTS, "seams", fail)
    assert benchmark.main(["profile", "seams", *SMALL, "--models", "linear_x2", "--json", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "USDT" not in line] == [
        "benchmark.py: seams could not be measured: a device fell off"
    ]
    assert "profile" in json.loads(out.read_text())  # what was measured before is kept


def test_a_child_that_fails_is_told_and_one_without_memory_leaves_its_cell_empty(monkeypatch) -> None:
    options = options_of(benchmark._parser().parse_args(["tiles", "--models", "nonsense"]))
    with pytest.raises(MeasurementError, match=r"tiles down, 2 couplings a stage: .*no model is named"):
        in_a_process("tiles", "down", options)

    def starve(name: str, options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(benchmark, "tiled", starve)
    assert benchmark.main(["tiles", "--child", "down"]) == OUT_OF_MEMORY
    done = subprocess.CompletedProcess([], OUT_OF_MEMORY, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    assert in_a_process("tiles", "down", options) is None


def test_the_profile_sums_up_to_the_whole(tmp_path) -> None:
    out = tmp_path / "figures.json"
    assert benchmark.main(["profile", *SMALL, "--models", "small_x2", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["profile"]
    for direction in ("down", "up"):
        shares = {row["operation"]: row["share %"] for row in rows if row["direction"] == direction}
        assert sum(shares.values()) == pytest.approx(100)
        assert any("conv" in operation for operation in shares)


def test_small_pictures_are_measured_together(tmp_path) -> None:
    out = tmp_path / "figures.json"
    assert benchmark.main(["batches", *SMALL, "--models", "linear_x4", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["batches"]
    assert [row["side"] for row in rows] == [32, 64, 128]
    assert all(row[f"{count} together, ms"] > 0 for row in rows for count in (1, 4, 16))


def test_medians_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    assert set(medians(calls, 2, torch.device("cpu"))) == {"a", "b"}
    assert "".join(order) == "ababab"


def test_a_photograph_of_any_size_has_no_seam() -> None:
    image = photograph(700, 1100)
    assert image.shape == (1, 3, 700, 1100)
    assert torch.equal(image[..., 511, :], image[..., 512, :])  # mirrored, not begun anew
    assert torch.equal(image[..., :512, :512], photograph(512, 512))
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_reversible_memory_does_not_grow_with_depth(tmp_path) -> None:
    out = tmp_path / "figures.json"
    command = ["memory", "--depths", "1", "5", "--batch", "1", "--patch", "128", "--threads", "1"]
    assert benchmark.main([*command, "--json", str(out)]) == 0
    shallow, deep = json.loads(out.read_text())["memory"]
    assert deep["reversible MB"] < 1.3 * shallow["reversible MB"]
    assert deep["naive MB"] > 3 * shallow["naive MB"]
    assert deep["plain MB"] > 1.5 * shallow["plain MB"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "nonsense"], "no model is named 'nonsense'"),
        (["--repeats", "0"], "'0' is no number of at least 1"),
        (["--size", "0", "9"], "'0' is no number of at least 1"),
        (["--json", "/no/such/folder/a.json"], "No such file or directory"),
        (["speed", "--draw", "/no/such/folder/a.png"], "No such file or directory"),
        (["speed", "--models", "irn_x8"], "weights are shipped for"),
        (["--device", "cuda"], "there is no CUDA device here"),
        (["--engines", "torch", "cudagraphs"], "--engines cudagraphs needs --device cuda"),
    ],
)
def test_misuse_is_told_before_anything_is_measured(
    capsys, monkeypatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["inference", *arguments])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert message in said.err.splitlines()[-1]
