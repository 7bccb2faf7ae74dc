"""Checks that a module computes what its class does: no override, patch or hook."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from torch import nn
from torch.nn.modules import module as modules

from invertible_rescaling.errors import ConfigError

__all__: list[str] = []  # for what goes round calling modules, or goes by what they say of themselves

CALLS = ("__call__", "forward", "inverse")


def definer(cls: type, name: str) -> type | None:
    """The class that gives a class its attribute of that name; None where none does."""
    for base in cls.__mro__:  # a loop, since torch.compile of torch 2.6 knows no next() with a default
        if name in vars(base):
            return base
    return None


def overridden(cls: type, known: type, methods: Sequence[str]) -> str | None:
    """The first of the methods that a class below the known one defines anew; None where none does."""
    for below in takewhile(lambda base: base is not known, cls.__mro__):
        for name in methods:
            if name in vars(below):
                return name
    return None


def has_patches(module: nn.Module) -> bool:
    """Whether an instance has its own in place of any method of its class."""
    kind = type(module)
    return any(callable(getattr(kind, name, None)) for name in vars(module))


def has_hooks(module: nn.Module) -> bool:
    """Whether anything listens to the module's calls or their gradients, global hooks apart."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def any_global_hook() -> bool:
    """Whether anything listens to all modules."""
    # Not torch's own _has_any_global_hook, which torch 2.6 has not.
    return bool(
        modules._global_forward_hooks
        or modules._global_forward_pre_hooks
        or modules._global_backward_hooks
        or modules._global_backward_pre_hooks
    )


def change(module: nn.Module, known: type, methods: Sequence[str] = CALLS) -> str | None:
    """What may make a call of the module another than of the class that is known, as a predicate, or None.

    Args:
        module: an instance of it.
        known: the class.
        methods: those that a call comes to.
    """
    defined_anew = overridden(type(module), known, methods)
    if defined_anew is not None:
        return f"overrides {defined_anew}()"
    state: dict[str, Any] = vars(module)
    patched = [name for name in methods if name in state]
    if patched:
        return f"has a patched {patched[0]}()"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has a forward hook"
    if any_global_hook():
        return "is heard by a global module hook"
    return None


def check_unchanged(module: nn.Module, who: str, known: type, methods: Sequence[str] = CALLS) -> None:
    """Refuse a module that others cannot compute in the place of.

    Raises:
        ConfigError: it is not of the class that is known, or it is overridden, patched or hooked.
    """
    why = change(module, known, methods) if isinstance(module, known) else f"is no {known.__name__}"
    if why is not None:
        raise not_followed(who, why)


def not_followed(who: str, why: str) -> ConfigError:
    """The error for a bijection that cannot be gone through layer by layer, because of one of its modules."""
    return ConfigError(
        f"{who} {why}: the bijection cannot be followed layer by layer, so that it cannot run in exact tiles "
        "and its receptive field is not known; pass overlap= to go by independent tiles"
    )
