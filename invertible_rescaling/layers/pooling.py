"""Rules for global pooling where a network sees an image in tiles."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor

__all__ = ["Pooling", "current_pooling", "pooling"]

_local = threading.local()


class Pooling(Protocol):
    """Given the feature map ``(B, C, H, W)`` a layer pools, returns the mean and maximum to go by.

    Both are ``(B, C, 1, 1)``, in the map's dtype.
    """

    def __call__(self, x: Tensor, /) -> tuple[Tensor, Tensor]: ...


@contextmanager
def pooling(rule: Pooling | None) -> Iterator[None]:
    """Let a rule decide what global pooling goes by, within a block and in this thread."""
    before = current_pooling()
    _local.rule = rule
    try:
        yield
    finally:
        _local.rule = before


def current_pooling() -> Pooling | None:
    """The rule in force; without one, each layer goes by what it pools itself."""
    rule: Pooling | None = getattr(_local, "rule", None)
    return rule
