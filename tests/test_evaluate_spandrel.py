"""Networks of other projects in the table, read by spandrel."""

import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

import evaluate
from invertible_rescaling.evaluation import bicubic_lr, measure
from invertible_rescaling.images import from_uint8, read_image
from tests.pictures import pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("spandrel") / "Set5", 2, side=44)


@pytest.fixture
def rcan(monkeypatch):
    """Spandrel's RCAN; where torchvision cannot be imported, with the names that spandrel asks it for."""
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed (the extra [compare])")
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        parts = {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
        asked = SimpleNamespace(InterpolationMode=None, rotate=None, normalize=None)
        for name, module in {**parts, "torchvision.transforms.functional": asked}.items():
            monkeypatch.setitem(sys.modules, name, module)
    return importlib.import_module("spandrel.architectures.RCAN").RCAN


def tiny(rcan, scale):
    torch.manual_seed(0)
    return rcan(scale=scale, n_resgroups=1, n_resblocks=1, n_feats=8, reduction=4).eval()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_network_of_another_project_is_measured_on_bicubic_lr(rcan, folder, tmp_path, capsys, suffix):
    network = tiny(rcan, 4)
    file = tmp_path / f"rcan.{suffix}"
    if suffix == "pth":
        torch.save(network.state_dict(), file)
    else:
        importlib.import_module("safetensors.torch").save_file(network.state_dict(), file)
    assert evaluate.main([str(folder), "--spandrel", str(file), "--json", "-"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][-1]
    assert (row["name"], row["kind"]) == ("rcan (x4 RCAN, on bicubic LR)", "spandrel")

    def by_hand(hr):
        lr = bicubic_lr(hr, 4)
        return lr, network(lr).clamp(0, 1)

    images = [from_uint8(read_image(path)[None]) for path in sorted(folder.iterdir())]
    with torch.inference_mode():
        found = [measure(by_hand, image, 4)[0]["psnr_rgb"] for image in images]
    assert row["figures"]["Set5"]["psnr_rgb"] == pytest.approx(sum(found) / 2, abs=1e-4)
    assert evaluate.main([str(folder), "--spandrel", str(file), "--paper"]) == 0
    assert "rcan (x4 RCAN, on bicubic LR)" in capsys.readouterr().out


def test_what_does_not_fit_the_table_is_named(rcan, folder, tmp_path, capsys):
    torch.save(tiny(rcan, 2).state_dict(), tmp_path / "twice.pth")
    (tmp_path / "text.pth").write_text("no weights")
    given = [str(tmp_path / name) for name in ("twice.pth", "text.pth", "none.pth")]
    assert evaluate.main([str(folder), "--spandrel", *given]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    wanted = "twice.pth is RCAN of scale 2, for SR; a super-resolution network of --scale 4 is wanted"
    assert wanted in lines[0]
    assert all(line.startswith("evaluate.py: --spandrel ") for line in lines)


def test_without_spandrel_it_says_what_to_install(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert evaluate.main([str(folder), "--spandrel", str(tmp_path / "any.pth")]) == 2
    assert "pip install 'invertible_rescaling[compare]'" in capsys.readouterr().err
