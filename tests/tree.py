"""The package's folders and modules by level, drawn from their imports, as CONTRIBUTING.md shows them.

``python -m tests.tree`` prints them; a test compares them with what stands there.
"""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "invertible_rescaling"


def rooms() -> dict[str, list[Path]]:
    """The folders, and the modules beside them, with their files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            found.setdefault(room, []).append(path)
    return found


def levels() -> dict[str, int]:
    """For each room one more than the highest of those it imports; 1 where it imports none."""
    imports = imports_of()
    found: dict[str, int] = {}
    while len(found) < len(imports):
        ready = [room for room, others in imports.items() if room not in found and others <= found.keys()]
        assert ready, f"round about: {sorted(imports.keys() - found.keys())}"
        found |= {room: 1 + max((found[other] for other in imports[room]), default=0) for room in ready}
    return found


def imports_of() -> dict[str, set[str]]:
    """For each room those that it imports."""
    return {room: _imported_by(files) & rooms().keys() - {room} for room, files in rooms().items()}


def draw() -> str:
    """One line for each room, the highest level first."""
    files = rooms()
    lines = ["invertible_rescaling/"]
    by_level = sorted(levels().items(), key=lambda pair: (-pair[1], len(files[pair[0]]) == 1, pair[0]))
    for room, level in by_level:
        is_folder = (PACKAGE / room).is_dir()
        first = PACKAGE / room / "__init__.py" if is_folder else PACKAGE / f"{room}.py"
        docstring = ast.get_docstring(ast.parse(first.read_text())) or ""
        name = f"{room}/" if is_folder else f"{room}.py"
        lines.append(f"  {name:14} {level}  {docstring.splitlines()[0].replace('``', '')}")
    return "\n".join(lines)


def _imported_by(files: list[Path]) -> set[str]:
    names: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                first, *rest = node.module.split(".")
                if first == PACKAGE.name:
                    names |= {rest[0]} if rest else {alias.name for alias in node.names}
    return names


if __name__ == "__main__":
    sys.stdout.write(draw() + "\n")
