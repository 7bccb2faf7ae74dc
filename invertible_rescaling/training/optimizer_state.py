"""An optimiser's moments as named tensors, for the state of a run."""

from typing import Any

import torch
from torch import Tensor


def optimizer_tensors(optimizer: Any) -> dict[str, Tensor]:
    """Adam's moments and counts, named ``INDEX.NAME`` by the index of their parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": t for index, moments in state.items() for name, t in moments.items()}


def restore_optimizer(optimizer: Any, tensors: dict[str, Tensor]) -> None:
    """Put the moments back in the memory layout of their parameters, as Adam itself made them."""
    saved = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, moment = name.split(".", 1)
        like = parameters[int(index)]
        same = tensor.shape == like.shape
        state.setdefault(int(index), {})[moment] = torch.empty_like(like).copy_(tensor) if same else tensor
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
