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


@pytest.mark.slow
def test_strict_checking_passes_a_users_script_and_every_public_name_and_notices_what_is_wrong(
    tmp_path: Path,
) -> None:
    """In one run, since the checker reads all of torch each time."""
    code = SCRIPT.read_text()
    (tmp_path / "user.py").write_text(code)
    names = [name.rpartition(".") for name in sorted(public())]
    imports = sorted({f"import {module}" for module, _, _ in names})
    # Of what has no type, strict checking lets nothing be called or given on.
    uses = [
        f"def use_{index}() -> object:\n    return {'.'.join((m, n))}"
        for index, (m, _, n) in enumerate(names)
    ]
    (tmp_path / "names.py").write_text("\n".join([*imports, *uses]) + "\n")
    wrong = "\n    number: int = model.downscale(hr)\n    model.upscale(lr, size=3)\n"
    (tmp_path / "wrong.py").write_text(code.replace("\n    sr: Tensor =", f"{wrong}\n    sr: Tensor ="))
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    command = [sys.executable, "-m", "mypy", "--no-incremental", "user.py", "names.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line.partition(":")[0] for line in done.stdout.splitlines() if " error: " in line]
    assert errors == ["wrong.py"] * 2, done.stdout
