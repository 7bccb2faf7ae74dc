"""A page of the reference for each public module, from what the code says is public."""

import inspect
from pathlib import Path
from types import ModuleType

from tests.public_api import modules

ROOT = "invertible_rescaling"


def write(folder: Path) -> None:
    """Write ``folder/NAME.rst`` for every module with public names."""
    folder.mkdir(exist_ok=True)
    found = {module.__name__: module for module in modules() if getattr(module, "__all__", None)}
    pages = {name: _page(module) for name, module in found.items()}
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob(f"{ROOT}*.rst"):
        if path.stem not in pages:
            path.unlink()


def _page(module: ModuleType) -> str:
    name = module.__name__
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    own, elsewhere = [], []
    root = inspect.getmodule(modules()[0])
    at_the_top = set(getattr(root, "__all__", ()))
    for public in module.__all__:
        thing = getattr(module, public)
        if inspect.ismodule(thing):
            elsewhere.append(f":mod:`{thing.__name__}`")
        elif name != ROOT and public in at_the_top and getattr(root, public) is thing:
            elsewhere.append(f":obj:`{ROOT}.{public}`")
        else:
            own.append(public)
    if elsewhere:
        lines += ["Described elsewhere: " + ", ".join(elsewhere) + ".", ""]
    lines += [f".. currentmodule:: {name}", ""]
    described = [public for public in own if callable(getattr(module, public))]
    if len(described) > 1:
        lines += [".. autosummary::", "", *(f"   {public}" for public in described), ""]
    for public in own:
        thing = getattr(module, public)
        lines += [public, "-" * len(public), ""]
        if inspect.isclass(thing):
            lines += [f".. autoclass:: {public}", "   :members:", "   :show-inheritance:", ""]
        elif callable(thing):
            lines += [f".. autofunction:: {public}", ""]
        else:
            shown = repr(sorted(thing) if isinstance(thing, frozenset) else thing)
            lines += [f".. py:data:: {public}", f"   :value: {shown[:200]}{'...' * (len(shown) > 200)}", ""]
    return "\n".join(lines)
