"""What global pooling goes by where a network sees an image in pieces."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn

__all__ = ["Pooling", "current_pooling", "pooling"]

_local = threading.local()


class Pooling(Protocol):
    """Is shown the mean and the maximum a layer pools, ``(B, C, 1, 1)``, and says what it shall go by."""

    def __call__(self, layer: nn.Module, mean: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]: ...


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
    """The rule in force; without one, each layer goes by what it pools."""
    rule: Pooling | None = getattr(_local, "rule", None)
    return rule
