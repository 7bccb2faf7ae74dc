"""Checkpoints: one safetensors file that carries its own configuration.

A file holds the ``state_dict`` as plain tensors and, in its header, the model's configuration and a
digest of the tensors. Nothing in it is executed on loading.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from invertible_rescaling.errors import CheckpointError, RescalingError, UnknownNameError, first_line
from invertible_rescaling.files import write_atomically

__all__ = [
    "load_weights",
    "read_metadata",
    "save_checkpoint",
    "verify_checkpoint",
]

# All facts go under one key: safetensors does not keep the order of several, and equal models are to make
# equal files.
_KEY = "invertible_rescaling"
_FORMAT = 1
_FACTS = frozenset({"format", "config", "metadata", "sha256"})
_PTH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
_STORABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PathLike = str | os.PathLike[str]
Model = TypeVar("Model", bound=nn.Module)


@runtime_checkable
class Storable(Protocol):
    """A model that a checkpoint can hold: a module that states its configuration as plain data."""

    @property
    def config(self) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any: ...


def save_checkpoint(
    model: Storable,
    path: PathLike,
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model to one safetensors file that ``load_checkpoint`` rebuilds it from.

    The file is written beside its final name and renamed, so that no reader ever sees half of it.

    Args:
        model: any rescaler whose sub-network and latent are registered by name, or a super-resolver of
            :mod:`invertible_rescaling.models.super_resolution`.
        path: where to; an existing file is replaced.
        metadata: JSON-able facts to keep in the header (training data, steps, figures).
        dtype: to round the weights to; ``torch.float16`` halves the file. Loading makes float32 of it.

    Raises:
        ConfigError: the sub-network or latent has no registered name.
        CheckpointError: ``metadata`` is not JSON-able; ``model`` is no rescaler; a weight is too large for
            ``dtype``, or ``dtype`` is none of float16, bfloat16, float32 and float64.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile, pathlib
        >>> from invertible_rescaling import iirn_x4, load_checkpoint, save_checkpoint
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "model.safetensors")
        ...     save_checkpoint(iirn_x4(blocks=(1, 1)), path)
        ...     load_checkpoint(path).blocks
        (1, 1)
    """
    if not isinstance(model, Storable):
        raise CheckpointError(f"save_checkpoint takes an InvertibleRescaler, got {type(model).__name__}")
    state = model.state_dict().items()
    tensors = {name: _stored(name, tensor.detach().cpu().contiguous(), dtype) for name, tensor in state}
    facts = {"format": _FORMAT, "config": model.config, "metadata": dict(metadata or {})}
    try:
        header = json.dumps(facts | {"sha256": _digest(tensors, facts)})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a checkpoint's configuration and metadata must be JSON: {error}") from error
    write_atomically(path, save(tensors, metadata={_KEY: header}))


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor
    if dtype not in _STORABLE:
        allowed = ", ".join(map(str, _STORABLE))
        raise CheckpointError(f"a checkpoint's weights can be stored in {allowed}, got {dtype!r}")
    rounded = tensor.to(dtype)
    if not torch.equal(rounded.isfinite(), tensor.isfinite()):
        peak = tensor.abs().max().item()
        raise CheckpointError(f"{name} holds {peak:.4g}, too large for {dtype}; store it in torch.float32")
    return rounded


def rebuild(make: Callable[[dict[str, Any]], Model], path: PathLike, *, strict: bool = True) -> Model:
    """Make a model of a checkpoint's configuration, in the dtype of its tensors, and fill it.

    Raises:
        CheckpointError: the file is no checkpoint or does not fit the model, or ``make`` cannot make one.
    """
    tensors, facts = read(path)
    try:
        model = make(facts["config"])
    except (RescalingError, TypeError) as error:
        raise cannot_build(path, error) from error
    if {tensor.dtype for tensor in tensors.values()} == {torch.float64}:
        model.double()
    fill(model, tensors, path, strict)
    return model


def cannot_build(path: PathLike, error: Exception) -> CheckpointError:
    """Return what is raised where a file's configuration makes no model here."""
    hint = "; import the package that registers its parts first" * isinstance(error, UnknownNameError)
    return CheckpointError(f"{path} describes a model that cannot be built here ({error}){hint}")


def load_weights(model: Storable, path: PathLike, *, strict: bool = True) -> None:
    """Fill an existing model from a checkpoint of the same structure.

    The latent may differ where neither has parameters, as none of the library's own has.

    Raises:
        CheckpointError: as for ``load_checkpoint``, or the file's model has another scale, number of
            channels or blocks, sub-network or clamp, or is another architecture's. The model is then left as
            it was.
    """
    load_made(lambda config: model, path, strict=strict)


def load_made(make: Callable[[dict[str, Any]], Any], path: PathLike, *, strict: bool = True) -> Any:
    """Fill the model that ``make`` returns for a checkpoint's configuration, and return it.

    Raises:
        CheckpointError: as for :func:`load_weights`.
    """
    tensors, facts = read(path)
    theirs = facts["config"]
    model = make(theirs)
    ours = model.config
    check_same({key: theirs.get(key) for key in ours | theirs if key != "latent"}, ours, path)
    fill(model, tensors, path, strict)
    return model


def check_same(theirs: Mapping[str, Any], ours: Mapping[str, Any], path: PathLike) -> None:
    """Raise CheckpointError where any of the values that a file has is not the model's."""
    differing = [key for key in theirs if theirs[key] != ours.get(key)]
    if differing:
        listed = ", ".join(f"{key}: file {theirs[key]!r}, model {ours.get(key)!r}" for key in differing)
        raise CheckpointError(
            f"{path} is another model's checkpoint ({listed}); build this model with the file's values, or "
            "the file's own model with load_checkpoint"
        )


def read_metadata(path: PathLike) -> dict[str, Any]:
    """Return a checkpoint's configuration and metadata without loading its tensors.

    Returns:
        ``{"config": ..., "metadata": ..., "sha256": ...}``.

    Raises:
        CheckpointError: as for ``load_checkpoint``, except that the digest is not verified.
    """
    facts = read(path, tensors=False)[1]
    return {name: facts[name] for name in ("config", "metadata", "sha256")}


def verify_checkpoint(path: PathLike) -> None:
    """Check that a file is a whole checkpoint of this library, its digest included; no model is built.

    Raises:
        CheckpointError: as for ``load_checkpoint``, except that nothing is said of what the file fits.
    """
    read(path)


def read(path: PathLike, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, their digest verified, and the facts in the header."""
    check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = list(file.keys()) if tensors else []
            found = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        hint = "; for the original IRN authors' .pth files there is load_original_irn" * _is_pth(path)
        raise CheckpointError(
            f"{path} is cut short or is no safetensors file ({first_line(error)}){hint}"
        ) from error
    try:
        facts = json.loads(header[_KEY])
    except (KeyError, ValueError):
        facts = None
    if not isinstance(facts, dict) or not facts.keys() >= _FACTS or not isinstance(facts["config"], dict):
        raise CheckpointError(
            f"{path} is a safetensors file but no checkpoint of this library: it carries no configuration "
            f"under {_KEY!r}; save_checkpoint writes one"
        )
    if facts["format"] != _FORMAT:
        raise CheckpointError(f"{path} has format {facts['format']!r}; this version reads format {_FORMAT}")
    if tensors and _digest(found, facts) != facts["sha256"]:
        raise CheckpointError(
            f"{path} is damaged or was altered: its content does not match the digest in its header"
        )
    return found, facts


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: PathLike, strict: bool) -> None:
    """Load tensors after comparing names and shapes, so that a misfit leaves the model as it was."""
    expected = model.state_dict()
    missing, surplus = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    shapes = [n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape]
    problems = [
        f"{what}: {', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("surplus", surplus), ("other shapes", shapes))
        if names
    ]
    if shapes or (strict and problems):
        raise CheckpointError(f"{path} does not fit the model; {'; '.join(problems)}")
    if problems:
        warnings.warn(f"{path} loaded in part; {'; '.join(problems)}", stacklevel=3)
    model.load_state_dict(dict(tensors), strict=False)


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Hash the tensors, the configuration and the metadata."""
    described = {name: facts[name] for name in ("config", "metadata")}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_is_file(path: PathLike) -> None:
    """Raise CheckpointError where there is no file."""
    if os.path.isdir(path):
        raise CheckpointError(f"{os.fspath(path)!r} is a folder; pass the path of a checkpoint file")
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no checkpoint file at {os.fspath(path)!r}")


def _is_pth(path: PathLike) -> bool:
    """Return whether a file begins as those of ``torch.save`` do, today's or the older ones."""
    try:
        with open(path, "rb") as file:
            return file.read(16).startswith(_PTH)
    except OSError:
        return False
