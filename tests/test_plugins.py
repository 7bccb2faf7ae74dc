"""Names that other packages bring: the package of docs/plugins.md, installed and trained, and broken ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from invertible_rescaling import registry
from invertible_rescaling.errors import UnknownNameError
from invertible_rescaling.images import write_image

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "plugins.md").read_text()


def _python(site: Path, *arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300, **options)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package of the docs is installed."""
    folder = tmp_path_factory.mktemp("package")
    for name, language in (("pyproject.toml", "toml"), ("large_kernels.py", "python")):
        found = re.search(rf"`{re.escape(name)}`:\n\n```{language}\n(.*?)```", DOCS, flags=re.DOTALL)
        assert found
        (folder / name).write_text(found[1])
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    done = _python(folder, *install, "--target", folder / "site", folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_its_names_are_there_without_an_import(site: Path) -> None:
    code = """
import torch
from invertible_rescaling import InvertibleRescaler, create_model, list_models
from invertible_rescaling.testing import check_invertible, randomize
parts = {"subnet": {"name": "large_kernel", "width": 8}, "latent": {"name": "bright", "share": 0.02}}
model = InvertibleRescaler(2, blocks=1, **parts)
assert {key: model.config[key] for key in parts} == parts
model = randomize(create_model("large_kernels_x2"), 0.2)
check_invertible(model, torch.rand(1, 3, 16, 16))
assert "large_kernels_x2" in list_models()
"""
    done = _python(site, "-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_unchanged_program_trains_its_model(site: Path, tmp_path: Path) -> None:
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "a.png", torch.rand(3, 48, 48))
    options = ("--model", "large_kernels_x2", "--data", tmp_path / "train", "--val", tmp_path / "val")
    sizes = ("--steps", 2, "--batch-size", 1, "--patch", 16, "--cpu", "--quiet", "--out", tmp_path / "run")
    done = _python(site, ROOT / "examples" / "train_div2k.py", *options, *sizes)
    assert done.returncode == 0, done.stderr
    code = """
import sys
from invertible_rescaling import create_model, load_checkpoint
for file in sys.argv[1:]:
    model = load_checkpoint(file)
    assert type(model.flow[1].phi).__name__ == "LargeKernel", model
    assert create_model("large_kernels_x2", weights=file).config == model.config
"""
    done = _python(site, "-c", code, *(tmp_path / "run" / f"{file}.safetensors" for file in ("best", "last")))
    assert done.returncode == 0, done.stderr


class _Point:
    """An entry point as the registry uses it."""

    dist = None

    def __init__(self, name: str, plugin: object) -> None:
        self.name, self.value, self.plugin = name, f"{name}:plugin", plugin

    def load(self) -> object:
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch, own_registries: None) -> list[_Point]:
    points: list[_Point] = []
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points * (group == registry.GROUP))
    monkeypatch.setattr(registry, "_plugins", set())
    return points


def test_a_broken_plugin_is_named_once_and_keeps_nobody_from_the_rest(plugins: list[_Point]) -> None:
    def taken() -> None:
        registry.register_model(lambda **options: None, name="iirn_x4")

    def good() -> None:
        registry.register_model(lambda **options: "mine", name="mine")

    plugins += [
        _Point("broken", ImportError("no module named x")),
        _Point("taken", taken),
        _Point("good", good),
    ]
    with pytest.warns(UserWarning, match="could not be loaded") as told:
        assert "mine" in registry.list_models()
    messages = [str(warning.message) for warning in told]
    assert messages[0] == "the plugin 'broken' could not be loaded (ImportError: no module named x)"
    assert messages[1].startswith("the plugin 'taken' could not be loaded (UnknownNameError: a model named")
    assert registry.create_model("mine") == "mine"  # and no more warnings, which would be errors
    assert registry.create_model("iirn_x4", blocks=0).scale == 4


def test_plugins_are_loaded_when_a_name_is_unknown_and_not_before(plugins: list[_Point]) -> None:
    loaded: list[str] = []
    plugins.append(_Point("late", lambda: loaded.append("late")))
    registry.create_model("iirn_x4", blocks=0)
    assert loaded == []
    with pytest.raises(UnknownNameError, match="no sub-network is named 'crdbb'; did you mean 'crdb'"):
        registry.subnets["crdbb"]
    assert loaded == ["late"]
    registry.list_models()
    assert loaded == ["late"]


def test_a_plugin_may_look_up_names_itself(plugins: list[_Point]) -> None:
    plugins.append(_Point("curious", lambda: registry.list_models()))
    assert registry.list_models("iirn_x4") == ["iirn_x4"]


def test_its_model_goes_through_the_command_line(site: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", torch.rand(3, 24, 26))
    code = """
from invertible_rescaling import create_model, save_checkpoint
from invertible_rescaling.cli import main
from invertible_rescaling.testing import randomize
save_checkpoint(randomize(create_model("large_kernels_x2"), 0.2), "mine.safetensors")
for line in (
    "downscale a.png small.png --model large_kernels_x2 --weights mine.safetensors",
    "upscale small.png back.png --weights mine.safetensors",
    "downscale a.png b.png --model large_kernels_x2",
    "downscale a.png b.png --model large_kernels_x2 --weights V1",
):
    print(main(line.split()))
"""
    done = _python(site, "-c", code, cwd=tmp_path)
    assert [line for line in done.stdout.splitlines() if len(line) == 1] == ["0", "0", "2", "2"]
    missing, unknown = done.stderr.splitlines()
    assert "no trained weights are shipped for large_kernels_x2; pass --weights FILE" in missing
    assert "got 'V1'; weights are shipped for" in unknown
