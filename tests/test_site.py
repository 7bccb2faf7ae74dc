"""What the documentation's build makes: every public name, the whole zoo, and files that compute the same."""

import json
import re
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from strategies import uniform

from invertible_rescaling import linear_x2
from invertible_rescaling.export import Downscale, export_onnx
from invertible_rescaling.weights import weights_of
from tests.public_api import modules

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def extensions(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))


def test_the_reference_has_every_public_name(tmp_path) -> None:
    import reference

    reference.write(tmp_path)
    written = {path.stem: path.read_text() for path in tmp_path.glob("*.rst")}
    for module in modules():
        for name in getattr(module, "__all__", ()):
            page = written[module.__name__]
            directive = rf"(autoclass|autofunction|py:data):: {name}$"
            assert re.search(directive, page, re.MULTILINE) or re.search(rf"`[\w.]+\.{name}`", page), name
    (tmp_path / "index.rst").write_text("kept")
    (tmp_path / "invertible_rescaling.gone.rst").write_text("of a module that is gone")
    reference.write(tmp_path)
    assert (tmp_path / "index.rst").exists()
    assert not (tmp_path / "invertible_rescaling.gone.rst").exists()


def test_the_zoo_has_every_rescaler_and_what_its_record_says() -> None:
    import zoo

    names = ["linear_x4", "small_x2", "iirn_x4"]
    table = zoo._table(names)
    assert table.count("<tr>") == 1 + sum(len(list(weights_of(name))) for name in names)
    known = weights_of("iirn_x4").DEFAULT.value
    (row,) = re.findall(r"<tr><td>iirn_x4</td>.*?</tr>", table)
    assert f'data-value="{known.parameters}"' in row
    for benchmark in ("Set5", "Set14", "BSD100"):
        assert f">{known.metrics[benchmark]['psnr_rgb']:.2f}<" in row


def test_the_speeds_in_the_pages_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "docs" / "measured" / "speed.json").read_text())
    page = (ROOT / "docs" / "performance.md").read_text()
    for name in measured["options"]["models"]:
        ((psnr, line),) = re.findall(rf"^\| `{name}` \| (\d\d\.\d\d) \| (.*) \|$", page, re.MULTILINE)
        found = [[float(rate) for rate in cell.split("/")] for cell in line.split("|")]
        rows = [row for row in measured["speed"] if row["model"] == name]
        known = weights_of(name).DEFAULT.metrics["BSD100"]["psnr_rgb"]
        assert psnr == f"{known:.2f}"
        assert {row["BSD100 dB"] for row in rows} == {known}
        rows.sort(key=lambda row: (("torch", "onnxruntime", "openvino").index(row["engine"]), row["threads"]))
        assert found == [
            [pytest.approx(row[f"{way} MP/s"], rel=0.03) for way in ("down", "up")] for row in rows
        ]


def test_weights_in_half_the_bytes_compute_the_same(tmp_path) -> None:
    import trial

    model, hr = linear_x2(weights="DEFAULT").eval(), uniform(1, 3, 20, 22)
    file = tmp_path / "down.onnx"
    export_onnx(Downscale(model), file)
    before = file.stat().st_size
    trial._halve(file)
    assert file.stat().st_size < before
    onnx.checker.check_model(onnx.load(file))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"hr": hr.numpy()})[0]), model.downscale(hr)
    )


def test_drawings_are_of_the_modules_as_they_are() -> None:
    import how

    from invertible_rescaling import iirn_x4

    model = iirn_x4(blocks=(3, 5)).eval()
    assert {"3 couplings", "5 couplings"} <= set(re.findall(r">(\d couplings)<", how._rescaler(model).html()))
    block = how._crdb(model).html()
    for convolution in (*model.flow[-1].phi.features.convs, model.flow[-1].phi.last):
        filters, channels = convolution.weight.shape[:2]
        assert f"{channels} → {filters}" in block
    assert all(f">{room}/<" in how._imports().html() for room in ("layers", "models", "pipeline"))


def test_tutorials_and_pages_are_listed() -> None:
    order = (ROOT / "docs" / "conf.py").read_text()
    for path in (ROOT / "examples" / "tutorials").glob("*.py"):
        assert f'"{path.name}"' in order
    listed = re.findall(r"^([a-z_]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages - {"index"} <= set(listed)


def test_nothing_of_the_pages_asks_another_host() -> None:
    files = [path for path in (ROOT / "docs").rglob("*.*") if "_build" not in path.parts]
    files = [path for path in files if path.suffix in (".js", ".css", ".html")]
    assert len(files) > 4
    assert not [path.name for path in files if re.search(r"https?://", path.read_text())]
