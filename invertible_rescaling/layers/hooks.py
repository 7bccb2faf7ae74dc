"""Checks that a call of a module runs its class's methods: no override, patch or hook."""

from collections.abc import Sequence
from itertools import takewhile

from torch import nn
from torch.nn.modules import module as modules

__all__: list[str] = []  # for what computes a layer without calling it

_CALLS = ("forward", "inverse")


def overridden(cls: type, known: type, methods: Sequence[str]) -> str | None:
    """Return the first of the methods that a class below the known one defines anew."""
    for below in takewhile(lambda base: base is not known, cls.__mro__):
        for name in methods:
            if name in vars(below):
                return name
    return None


def any_global_hook() -> bool:
    """Return whether anything listens to all modules."""
    # Not torch's own _has_any_global_hook, which torch 2.6 has not.
    return bool(
        modules._global_forward_hooks
        or modules._global_forward_pre_hooks
        or modules._global_backward_hooks
        or modules._global_backward_pre_hooks
    )


def hooks_of(module: nn.Module) -> str | None:
    """Return what a call of the module runs beside or instead of its class's methods, as a predicate."""
    if any_global_hook():
        return "is heard by a global module hook"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has a forward hook"
    if module._backward_hooks or module._backward_pre_hooks:
        return "has a backward hook"
    patched = [name for name in _CALLS if name in vars(module)]
    return f"has a patched {patched[0]}()" if patched else None


def alteration(module: nn.Module) -> str | None:
    """Do as :func:`hooks_of` for the module and all modules in it, with the name of the one that it is."""
    for name, inner in module.named_modules():
        found = hooks_of(inner)
        if found is not None:
            return f"{name or type(module).__name__} {found}"
    return None
