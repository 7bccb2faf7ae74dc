"""The wheel and the source distribution: what is in them, what they say, and that they work by themselves."""

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

pytestmark = pytest.mark.slow


def _run(*command: object, cwd: Path) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    arguments = [*map(str, command)]
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, env=kept)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, the wheel made of what is in the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def _metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_checkers_have_nothing_to_say(dist: Path) -> None:
    tools = Path(sys.executable).parent
    told = _run(tools / "twine", "check", "--strict", *dist.iterdir(), cwd=dist)
    assert told.count("PASSED") == 2
    _run(tools / "check-wheel-contents", *dist.glob("*.whl"), cwd=ROOT)


def test_the_source_makes_the_same_wheel_as_the_checkout(dist: Path, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (direct,), (through,) = tmp_path.glob("*.whl"), dist.glob("*.whl")
    assert direct.name == through.name
    assert direct.read_bytes() == through.read_bytes()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    tracked = (
        _run("git", "ls-files", "invertible_rescaling", cwd=ROOT).split()
        if (ROOT / ".git").exists()
        else names
    )
    assert names == set(tracked)
    assert {"invertible_rescaling/py.typed", "invertible_rescaling/weights/files/LICENSE.md"} <= names
    assert any(name.endswith(".safetensors") for name in names)


def test_the_source_can_be_tested_and_tried(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "tests/conftest.py",
        "examples/train_div2k.py",
        "tools/evaluate.py",
        "docs/training.md",
        "constraints.txt",
        "constraints-lowest.txt",
        "LICENSE",
    } <= names
    assert not [name for name in names if name.startswith((".git/", "runs/", ".venv/", ".gpu/"))]


def test_metadata_is_complete(wheel: zipfile.ZipFile) -> None:
    told = _metadata(wheel)
    extras = {"all", "cli", "compare", "hub", "images", "onnx", "openvino", "ray", "test", "train"}
    assert extras <= set(told.get_all("Provides-Extra", []))
    assert told["Requires-Python"] == ">=3.11"
    assert len(told.get_all("Project-URL", [])) >= 2
    assert told["Description-Content-Type"] == "text/markdown"
    core = [line for line in told.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in core}  # type: ignore[index]
    # What the design allows; PyWavelets and setuptools, since pytorch-wavelets forgets to ask for them.
    assert names == {"numpy", "pytorch-wavelets", "pywavelets", "safetensors", "setuptools", "torch"}


def test_everything_is_in_all() -> None:
    """But for what only developers need; spandrel brings torchvision, which has to fit torch."""
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.findall(r"\w+", everything.partition("[")[2]))
    assert named == set(extras) - {"all", "compare", "docs", "test"}


_USER = """
import sys, importlib.util
import torch
import invertible_rescaling
from invertible_rescaling import WaveletLatent, iirn_x4
assert "site-packages" in invertible_rescaling.__file__
assert invertible_rescaling.__version__ == sys.argv[1]
absent = [name for name in ("PIL", "typer", "huggingface_hub", "skimage") if importlib.util.find_spec(name)]
assert not absent, absent
model = iirn_x4(weights="DEFAULT").eval()
hr = torch.rand(1, 3, 30, 41)
assert model.upscale(model.downscale(hr), size=(30, 41)).shape == hr.shape
"""
_OTHER_WAVELETS = """
from invertible_rescaling import WaveletLatent
assert WaveletLatent("db2", scale=4)(__import__("torch").rand(1, 3, 5, 7)).shape == (1, 45, 5, 7)
"""


def test_the_wheel_installs_and_works_by_itself(dist: Path, tmp_path: Path) -> None:
    (path,) = dist.glob("*.whl")
    _run(sys.executable, "-m", "venv", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", path, cwd=tmp_path)
    _run(python, "-W", "error", "-c", _USER, PROJECT["version"], cwd=tmp_path)
    _run(python, "-c", _OTHER_WAVELETS, cwd=tmp_path)
    told = subprocess.run([python.parent / "invertible-rescaling", "models"], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (
        2,
        "error: the command line needs rich: pip install 'invertible_rescaling[cli]'\n",
    )


def test_the_lowest_versions_that_are_tested_are_the_lowest_that_are_promised() -> None:
    """But for torch, as .ci/lowest explains; setuptools has a highest version alone."""
    of_users = [
        PROJECT["optional-dependencies"][name] for name in ("cli", "hub", "onnx", "openvino", "ray", "train")
    ]
    promised: dict[str, Version] = {}
    for need in map(Requirement, chain(PROJECT["dependencies"], *of_users)):
        for bound in need.specifier:
            if bound.operator == ">=":
                name = canonicalize_name(need.name)
                promised[name] = max(Version(bound.version), promised.get(name, Version("0")))
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()[1:]
    tested = {
        canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)
    }
    assert len(promised) > 15
    del promised["torch"]
    assert promised == {name: tested[name] for name in promised}
