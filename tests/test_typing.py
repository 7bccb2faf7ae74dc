"""What a strict type checker says of code that uses this library, installed as users install it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import invertible_rescaling
from tests.public_api import public

SCRIPT = Path(__file__).with_name("typed_user.py")


def test_the_script_uses_every_name() -> None:
    tree = ast.parse(SCRIPT.read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "invertible_rescaling"
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported == set(invertible_rescaling.__all__)
    assert imported <= used


def _check(folder: Path, code: str) -> "subprocess.CompletedProcess[str]":
    (folder / "user.py").write_text(code)
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    command = [sys.executable, "-m", "mypy", "--no-incremental", "user.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_a_users_script_passes_strict_checking(tmp_path: Path) -> None:
    done = _check(tmp_path, SCRIPT.read_text())
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_every_public_name_has_a_type(tmp_path: Path) -> None:
    names = [name.rpartition(".") for name in sorted(public())]
    imports = sorted({f"import {module}" for module, _, _ in names})
    # Of what has no type, strict checking lets nothing be called or given on.
    uses = [
        f"def use_{index}() -> object:\n    return {'.'.join((m, n))}"
        for index, (m, _, n) in enumerate(names)
    ]
    done = _check(tmp_path, "\n".join([*imports, *uses]) + "\n")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_checker_would_notice(tmp_path: Path) -> None:
    wrong = "\n    number: int = model.downscale(hr)\n    model.upscale(lr, size=3)\n"
    code = SCRIPT.read_text().replace("\n    sr: Tensor =", f"{wrong}\n    sr: Tensor =")
    done = _check(tmp_path, code)
    assert done.returncode == 1
    assert done.stdout.count(" error: ") == 2, done.stdout
