"""Memory that the kernels share from call to call."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__: list[str] = []  # for the kernels, and for what runs many of them in a row

_local = threading.local()


@contextmanager
def scratch() -> Iterator[None]:
    """Let all sub-networks that run within the block, in this thread, share one buffer."""
    if getattr(_local, "buffers", None) is not None:
        yield
        return
    _local.buffers = {}
    try:
        yield
    finally:
        _local.buffers = None


def take(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A CPU tensor with anything in it, for use until the next call: the buffer, within :func:`scratch`."""
    buffers: dict[tuple[torch.dtype, bool], Tensor] | None = getattr(_local, "buffers", None)
    if buffers is None:
        return torch.empty(shape, dtype=dtype, device="cpu")
    count = math.prod(shape)
    key = (dtype, torch.is_inference_mode_enabled())
    if key not in buffers or buffers[key].numel() < count:
        buffers.pop(key, None)  # before the larger one is made
        buffers[key] = torch.empty(count, dtype=dtype, device="cpu")
    return buffers[key][:count].view(shape)
