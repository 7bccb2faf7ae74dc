"""The benchmark: that it runs, and that what it compares with computes the same."""

import json
import sys

import pytest
import torch
from strategies import uniform

import benchmark
from benchmarking.inference import photograph
from benchmarking.naive import NaiveRescaler
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
    assert figures["import"][0]["import adds ms"] > 0
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
