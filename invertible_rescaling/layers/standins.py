"""Leaves in the place of a module's parameters for a while, and its running statistics left as they are."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__: list[str] = []  # for reversible alone

Place = tuple[nn.Module, str, nn.Parameter]

_turn = threading.Condition()
_holders: dict[int, int] = {}  # by a module's id, the thread that has leaves stand in for its parameters


@contextmanager
def alone_with(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Wait until no other thread has leaves in place of these modules' parameters, and let others wait."""
    me = threading.get_ident()
    with _turn:
        _turn.wait_for(lambda: all(_holders.get(id(module), me) == me for module in modules))
        taken = [id(module) for module in modules if id(module) not in _holders]
        _holders.update(dict.fromkeys(taken, me))
    try:
        yield
    finally:
        with _turn:
            for key in taken:
                del _holders[key]
            _turn.notify_all()


@contextmanager
def standing_in(places: Sequence[Place], leaves: Mapping[nn.Parameter, nn.Parameter]) -> Iterator[None]:
    """Put leaves that share the parameters' values in their place.

    Gradients are collected there, and the parameters' own hooks are not called twice.
    """
    before = [(module._parameters, name, module._parameters[name]) for module, name, _ in places]
    try:
        for module, name, parameter in places:
            module._parameters[name] = leaves[parameter]
        yield
    finally:
        for table, name, present in before:
            table[name] = present


@contextmanager
def statistics_at_rest(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let batch norms in training mode normalise without counting the batch again."""
    before = [
        (module, name, getattr(module, name))
        for module in modules
        if isinstance(module, _NormBase) and module.training
        for name in ("running_mean", "running_var", "num_batches_tracked")
    ]
    try:
        for module, name, _ in before:
            setattr(module, name, None)
        yield
    finally:
        for module, name, buffer in before:
            setattr(module, name, buffer)
