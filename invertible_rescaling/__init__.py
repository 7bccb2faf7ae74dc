"""Invertible image rescaling: shrink a picture so that it can be brought back.

Example:
    >>> import torch
    >>> from invertible_rescaling import iirn_x4
    >>> model = iirn_x4().eval()
    >>> hr = torch.rand(1, 3, 30, 41)
    >>> lr = model.downscale(hr)
    >>> model.upscale(lr, size=(30, 41)).shape
    torch.Size([1, 3, 30, 41])
"""

from invertible_rescaling import _process  # noqa: F401  # first, to count what the imports below take

# isort: split
from importlib import import_module
from typing import Any

from lazy_loader import attach_stub

# torch takes seconds to import, and help, completion and misuses at the shell do without it. So every name is
# imported when it is first asked for; __init__.pyi has the names, which type checkers read.
_attribute, _, _names = attach_stub(__name__, __file__)
_MODULES = frozenset(
    {
        "errors",
        "evaluation",
        "export",
        "flows",
        "functional",
        "images",
        "kernels",
        "layers",
        "losses",
        "metrics",
        "models",
        "pipeline",
        "registry",
        "testing",
        "tiling",
        "training",
        "weights",
    }
)
__all__ = [name for name in _names if name not in _MODULES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module(f"{__name__}._version").__version__
    if name not in _names:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _attribute(name)


def __dir__() -> list[str]:
    return [*globals(), *_names, "__version__"]
