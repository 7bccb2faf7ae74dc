"""Models in folders and on a hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from invertible_rescaling import InvertibleRescaler, iirn_x4, load_checkpoint, save_checkpoint, srcnn_x4
from invertible_rescaling.errors import CheckpointError, ConfigError
from invertible_rescaling.models.super_resolution import SuperResolver
from invertible_rescaling.testing import randomize
from invertible_rescaling.weights import IIRN_X4_Weights, SRCNN_X4_Weights, read_metadata
from tests.hub_server import TOKEN, hub

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:huggingface_hub")


@pytest.fixture
def model() -> InvertibleRescaler:
    return randomize(iirn_x4(blocks=1, subnet={"name": "crdb", "growth": 4}), 0.2)


def _card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_a_folder_gives_back_the_model(tmp_path: Path, model: InvertibleRescaler) -> None:
    folder = tmp_path / "deep" / "folder"
    model.save_pretrained(folder, metadata={"steps": 7})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    found = InvertibleRescaler.from_pretrained(folder)
    assert type(found) is InvertibleRescaler
    assert not found.training
    assert found.config == model.config == json.loads((folder / "config.json").read_text())
    hr = torch.rand(1, 3, 20, 24)
    assert torch.equal(found.downscale(hr), model.eval().downscale(hr))
    # The file is a checkpoint like any other.
    assert read_metadata(folder / "model.safetensors")["metadata"] == {"steps": 7}
    assert load_checkpoint(folder / "model.safetensors").config == model.config


def test_saving_again_replaces_all(tmp_path: Path, model: InvertibleRescaler) -> None:
    model.save_pretrained(tmp_path, metadata={"licence": "MIT"})
    randomize(iirn_x4(blocks=2), 0.2).save_pretrained(tmp_path)
    assert InvertibleRescaler.from_pretrained(tmp_path).blocks == (2, 2)
    assert "license: mit" not in _card(tmp_path)


def test_shipped_weights_bring_their_record(tmp_path: Path) -> None:
    best = IIRN_X4_Weights.DEFAULT
    iirn_x4(weights=best).save_pretrained(tmp_path, weights=best)
    card = _card(tmp_path)
    set5 = best.metrics["Set5"]
    assert f"| Set5 (5) | {set5['psnr_rgb']:.2f} | {set5['ssim_rgb']:.4f} | {set5['psnr_y']:.2f} |" in card
    assert "license: cc-by-sa-4.0" in card
    assert "CID22 training split: 207 images, CC BY-SA 4.0" in card
    assert f"{best.parameters:,} parameters" in card
    kept = read_metadata(tmp_path / "model.safetensors")["metadata"]
    assert (kept["recipe"], kept["licence"]) == (best.recipe, best.licence)
    # Nothing is lost, and nothing stored twice as large.
    assert (tmp_path / "model.safetensors").stat().st_size < 1.05 * best.locate().stat().st_size
    found = InvertibleRescaler.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(found[name], t) for name, t in iirn_x4(weights=best).state_dict().items())


def test_networks_for_comparison_too(tmp_path: Path) -> None:
    srcnn_x4(weights="DEFAULT").save_pretrained(tmp_path, weights=SRCNN_X4_Weights.DEFAULT)
    assert type(SuperResolver.from_pretrained(tmp_path)).__name__ == "SRCNN"
    with pytest.raises(CheckpointError, match="of 'srcnn', not of an InvertibleRescaler"):
        InvertibleRescaler.from_pretrained(tmp_path)
    assert "import SRCNN" in _card(tmp_path)


@pytest.mark.parametrize("changed", ["weights", "structure"])
def test_a_record_goes_with_its_weights_only(tmp_path: Path, changed: str) -> None:
    best = IIRN_X4_Weights.DEFAULT
    model = iirn_x4(weights=best) if changed == "weights" else iirn_x4(blocks=1)
    if changed == "weights":
        with torch.no_grad():
            next(model.parameters()).add_(1e-3)
    with pytest.raises(ConfigError, match="the model is not the one of"):
        model.save_pretrained(tmp_path, weights=best)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="got 'DEFAULT'"):
        model.save_pretrained(tmp_path, weights="DEFAULT")
    with pytest.raises(ConfigError, match="give one of the two"):
        model.save_pretrained(tmp_path, weights=best, metadata={})


def test_what_is_no_model_is_refused(tmp_path: Path, model: InvertibleRescaler) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint file at .*model\.safetensors"):
        InvertibleRescaler.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        InvertibleRescaler.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="a file; load_checkpoint reads it"):
        InvertibleRescaler.from_pretrained(file)
    with pytest.raises(CheckpointError, match="no folder, and no user/name"):
        InvertibleRescaler.from_pretrained("a/b/c")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="cut short"):
        InvertibleRescaler.from_pretrained(tmp_path)
    save_checkpoint(iirn_x4(blocks=2), file)
    with pytest.raises(CheckpointError, match="about another model"):
        InvertibleRescaler.from_pretrained(tmp_path)


_CLIENT = """
import sys, torch
from invertible_rescaling import InvertibleRescaler, RescalingError, iirn_x4
from invertible_rescaling.testing import randomize
token = sys.argv[1]
model = randomize(iirn_x4(blocks=1, subnet={"name": "crdb", "growth": 4}), 0.2)
address = model.push_to_hub("somebody/small", metadata={"licence": "MIT"}, token=token)
assert address.endswith("/somebody/small/commit/" + "1" * 40), address
found = InvertibleRescaler.from_pretrained("somebody/small", token=token)
hr = torch.rand(1, 3, 20, 24)
assert torch.equal(found.downscale(hr), model.eval().downscale(hr))
again = InvertibleRescaler.from_pretrained("somebody/small", local_files_only=True)
assert torch.equal(again.downscale(hr), found.downscale(hr))
for call in (
    lambda: InvertibleRescaler.from_pretrained("somebody/nothing"),
    lambda: InvertibleRescaler.from_pretrained("somebody/other", local_files_only=True),
    lambda: model.push_to_hub("somebody/small", token="hf_wrong"),
):
    try:
        call()
    except RescalingError as error:
        print(type(error).__name__, str(error))
    else:
        raise AssertionError
"""


def test_there_and_back_by_way_of_a_hub(tmp_path: Path) -> None:
    with hub() as server:
        environment = os.environ | {
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "no_proxy": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", _CLIENT, TOKEN],
            env=environment,
            text=True,
            capture_output=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["CheckpointError"] * 3
    assert "there is no folder 'somebody/nothing', and from the hub: " in lines[0]
    files = server.repositories["somebody/small"]
    assert sorted(set(files) - {".gitattributes"}) == ["README.md", "config.json", "model.safetensors"]
    assert b"license: mit" in files["README.md"]


_WITHOUT = """
import sys
sys.modules["huggingface_hub"] = None
from invertible_rescaling import iirn_x4
from invertible_rescaling.errors import MissingDependencyError
import tempfile
from invertible_rescaling import InvertibleRescaler
with tempfile.TemporaryDirectory() as folder:
    iirn_x4(blocks=1).save_pretrained(folder)
    print(InvertibleRescaler.from_pretrained(folder).blocks)
for call in (lambda: InvertibleRescaler.from_pretrained("a/b"), lambda: iirn_x4(blocks=1).push_to_hub("a/b")):
    try:
        call()
    except MissingDependencyError as error:
        print(error)
"""


def test_folders_do_without_huggingface_hub_and_repositories_name_it() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], text=True, capture_output=True, check=True)
    folder, *named = done.stdout.splitlines()
    assert folder == "(1, 1)"
    assert ["pip install 'invertible_rescaling[hub]'" in line for line in named] == [True, True]
