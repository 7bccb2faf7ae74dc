"""The public interface as text: every public name, with its parameters.

``python -m tests.public_api > tests/public_api.txt`` checks in a change that was made on purpose.
"""

import importlib
import inspect
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parents[1] / "invertible_rescaling"
# Methods that classes of other packages have too, and that say nothing of this library's interface.
_NOT_OURS = frozenset({"extra_repr"})


def modules() -> list[ModuleType]:
    """The package, its modules and its folders: what lies within a folder is public by the folder's face.

    A face may name a module, whose own names are public then.
    """
    paths = sorted({*PACKAGE.glob("*.py"), *PACKAGE.rglob("__init__.py")})
    names = (".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths)
    found = [importlib.import_module(name.removesuffix(".__init__")) for name in names]
    faces = [getattr(module, name) for module in found for name in getattr(module, "__all__", ())]
    return found + [thing for thing in faces if inspect.ismodule(thing)]


def public() -> dict[str, Any]:
    """Every public name by its full path."""
    found: dict[str, Any] = {}
    for module in modules():
        found |= {
            f"{module.__name__}.{name}": getattr(module, name)
            for name in getattr(module, "__all__", ())
            if not inspect.ismodule(getattr(module, name))
        }
    return found


def inventory() -> list[str]:
    """A line for each public name, and for each public method and property of a class of this library."""
    lines = []
    for name, thing in public().items():
        lines.append(name + _parameters(thing))
        if inspect.isclass(thing) and _is_home(name, thing):
            lines += [f"{name}.{member}" for member in _members(thing)]
    return sorted(lines)


def _is_home(name: str, thing: type) -> bool:
    """Whether a class is listed with its members here: under the face of its folder, or its module."""
    place = name.rpartition(".")[0]
    return place != PACKAGE.name and f"{thing.__module__}.".startswith(f"{place}.")


def _members(cls: type) -> list[str]:
    """What a class of this library says for itself, with parameters."""
    found = []
    for name, member in vars(cls).items():
        if name.startswith("_") or name in _NOT_OURS or (inspect.isclass(member)):
            continue
        if isinstance(member, classmethod | staticmethod):
            member = member.__func__
        if inspect.isfunction(member):
            found.append(name + _parameters(member))
        elif isinstance(member, property):
            found.append(name)
    return found


def _parameters(thing: Any) -> str:
    """Names, kinds and defaults; annotations are for the type checker, and spelled differently by Pythons."""
    has = inspect.isroutine(thing) or (inspect.isclass(thing) and not issubclass(thing, BaseException | Enum))
    if not has:
        return ""
    signature = inspect.signature(thing)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))


if __name__ == "__main__":
    sys.stdout.write("\n".join(inventory()) + "\n")
