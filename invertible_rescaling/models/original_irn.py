"""Checkpoints of the original IRN authors, in their layout."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from invertible_rescaling.errors import CheckpointError, first_line
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.weights.checkpoint import PathLike, check_is_file, fill

__all__ = ["load_original_irn"]


def load_original_irn(path: PathLike, *, latent: Any = "gaussian") -> InvertibleRescaler:
    """Import a checkpoint of the original IRN authors (``operations.N.F.conv1.weight``, ...).

    The scale, the blocks per stage and the growth are read off the tensors' names and shapes. The file is a
    pickle; it is opened with ``weights_only=True``, which runs no code from it.

    Args:
        path: a ``.pth`` file with a ``state_dict``, or with one under ``params_ema``, ``params`` or
            ``state_dict``, as BasicSR writes them.
        latent: of the model to make, as for :class:`~invertible_rescaling.InvertibleRescaler`.

    Returns:
        An IRN rescaler in float32.

    Raises:
        CheckpointError: no such file; unreadable; not of that layout.

    References:
        Xiao et al. 2020, *Invertible Image Rescaling*; F, G and H there are phi, eta and rho here.
    """
    check_is_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises its own, pickle's, zipfile's and plain RuntimeErrors here
        raise CheckpointError(
            f"{path} cannot be read as a state_dict: {first_line(error)}; this reads the original IRN "
            "authors' .pth files, load_checkpoint those of this library"
        ) from error
    if isinstance(state, Mapping):  # BasicSR keeps two of them, the averaged one is the better
        state = next((state[key] for key in ("params_ema", "params", "state_dict") if key in state), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} does not hold a state_dict (a mapping of names to tensors)")
    tensors = {str(key).removeprefix("module."): value for key, value in state.items()}
    config, renamed = _translate_original(tensors, path)
    model = InvertibleRescaler(**config, latent=latent)
    fill(model, renamed, path, strict=True)
    return model


_ORIGINAL_HAAR = re.compile(r"operations\.(\d+)\.haar_weights")
_ORIGINAL_CONV = re.compile(r"operations\.(\d+)\.([FGH])\.conv([1-5])\.(weight|bias)")
_ORIGINAL_ROLES = {"F": "phi", "G": "eta", "H": "rho"}
_HAAR_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


def _translate_original(
    tensors: Mapping[str, Tensor], path: PathLike
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    haars: dict[int, Tensor] = {}
    couplings: set[int] = set()
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := _ORIGINAL_HAAR.fullmatch(name):
            haars[int(match[1])] = tensor
        elif match := _ORIGINAL_CONV.fullmatch(name):
            index, role, number, kind = int(match[1]), _ORIGINAL_ROLES[match[2]], int(match[3]), match[4]
            couplings.add(index)
            conv = "last" if number == 5 else f"features.convs.{number - 1}"
            renamed[f"flow.layers.{index}.{role}.{conv}.{kind}"] = tensor
        else:
            raise CheckpointError(f"{path} is not of the original IRN layout: it holds {name!r}")
    positions = sorted(haars)
    end = len(haars) + len(couplings)
    if not haars or positions[0] != 0 or sorted(couplings | haars.keys()) != list(range(end)):
        raise CheckpointError(
            f"{path} is not of the original IRN layout: operations must count up from a Haar step at 0, "
            f"found Haar steps at {positions} and couplings at {sorted(couplings)}"
        )
    for index, weights in haars.items():
        if not _is_haar(weights):
            raise CheckpointError(f"{path}: operations.{index}.haar_weights is no Haar filter bank")
    first = next((t for n, t in renamed.items() if n.endswith(".features.convs.0.weight")), None)
    if first is not None and first.dim() != 4:
        raise CheckpointError(f"{path} is not of the original IRN layout: a conv1.weight is {first.dim()}-d")
    config = {
        "scale": 2 ** len(haars),
        "channels": len(haars[0]) // 4,
        "blocks": [b - a - 1 for a, b in zip(positions, [*positions[1:], end], strict=True)],
        "subnet": {"name": "dense"} if first is None else {"name": "dense", "growth": len(first)},
    }
    return config, renamed


def _is_haar(weights: Tensor) -> bool:
    signs = torch.tensor(_HAAR_SIGNS).repeat(len(weights) // 4 if weights.dim() == 4 else 0, 1)
    return len(signs) > 0 and torch.equal(weights.flatten(1).cpu().sign().long(), signs)
