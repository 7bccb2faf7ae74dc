"""What else may run the flow of a rescaler."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import torch
from torch import Tensor

from invertible_rescaling.errors import ConfigError

__all__ = ["FlowEngine", "Precision"]

Precision = Literal["fp32", "bf16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class FlowEngine(Protocol):
    """Runs the flow of one rescaler, without gradients: a state ``(B, C, H, W)`` to another, either way.

    The result equals that of ``model.flow(state)``, or of ``model.flow.inverse(state)``, up to rounding.
    """

    def __call__(self, state: Tensor, *, inverse: bool) -> Tensor: ...


def at_precision(precision: Precision | None, device: torch.device) -> AbstractContextManager[object]:
    """Enter autocast for sub-networks in half precision, or leave it; ``None`` leaves it as it is.

    Raises:
        ConfigError: there is no such precision, or the device has no autocast.
    """
    if precision is None:
        return nullcontext()
    if precision not in _DTYPES:
        raise ConfigError(f"precision must be one of {', '.join(_DTYPES)}, got {precision!r}")
    if not torch.amp.is_autocast_available(device.type):
        if precision == "fp32":
            return nullcontext()
        raise ConfigError(f"there is no precision {precision!r} on {device.type!r}, which has no autocast")
    return torch.autocast(device.type, _DTYPES[precision], enabled=precision != "fp32")
