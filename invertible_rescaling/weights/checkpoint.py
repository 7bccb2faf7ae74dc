"""Checkpoints, one safetensors file that carries its own configuration: written, read and checked here.

A file holds the ``state_dict`` as plain tensors and, in its header, the model's configuration and a
digest of the tensors. Nothing in it is executed on loading.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as parse_safetensors, save
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
    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any: ...


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
        CheckpointError: ``metadata`` is not JSON-able; ``model`` is no rescaler, or one whose weights could
            not be loaded again: pruned, reparametrised, or not finite; a weight is too large for ``dtype``,
            or ``dtype`` is none of float16, bfloat16, float32 and float64.
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
    _check_loadable(model, tensors)
    write_checkpoint(path, tensors, model.config, dict(metadata or {}))


def _check_loadable(model: Storable, tensors: Mapping[str, Tensor]) -> None:
    """Refuse what :func:`load_checkpoint` would refuse, while the model is still there."""
    with torch.random.fork_rng(devices=[]):  # on the CPU: "meta" takes thirty times as long
        promised = type(model).from_config(model.config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    odd = sorted(
        name for name in shapes if name not in promised or shapes[name] != tuple(promised[name].shape)
    )
    if odd or promised.keys() - shapes.keys():
        named = ", ".join((odd or sorted(promised.keys() - shapes.keys()))[:3])
        raise CheckpointError(
            f"the model's weights are not those of its config ({named}, ...), and no file of them could be "
            "loaded; make pruning and parametrizations permanent first (torch.nn.utils.prune.remove, "
            "torch.nn.utils.parametrize.remove_parametrizations)"
        )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"the weight {name} is not finite everywhere, and the model of no use")


def write_checkpoint(
    path: PathLike, tensors: dict[str, Tensor], config: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """Write a file that :func:`read_checkpoint` reads.

    Raises:
        CheckpointError: ``config`` or ``metadata`` is not JSON-able.
        OSError: the file cannot be written.
    """
    facts = {"format": _FORMAT, "config": config, "metadata": metadata}
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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, whole and unaltered: its digest has been verified.

    Attributes:
        source: the path or the address that it came from, for messages.
        sha256: of the whole file, in hexadecimal.
        tensors: by their names in the model's state dict.
        config: the model's structure.
        metadata: what else was saved.
    """

    source: str
    sha256: str
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    metadata: dict[str, Any]

    @classmethod
    def parse(cls, content: bytes, source: str) -> Self:
        """Take a file's content apart.

        Raises:
            CheckpointError: it is no checkpoint, or cut short or altered.
        """
        with _safetensors_errors(source):
            tensors = parse_safetensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts = _facts(header.get("__metadata__") or {}, source)
        if _digest(tensors, facts) != facts["sha256"]:
            raise CheckpointError(
                f"{source} is damaged or was altered: its content does not match the digest in its header"
            )
        return cls(source, hashlib.sha256(content).hexdigest(), tensors, facts["config"], facts["metadata"])

    def build(self, make: Callable[[dict[str, Any]], Model], *, strict: bool = True) -> Model:
        """Return the model that ``make`` makes of the configuration, in the tensors' dtype and filled.

        Raises:
            CheckpointError: the tensors do not fit the model, or ``make`` cannot make one.
        """
        try:
            model = make(self.config)
        except (RescalingError, TypeError) as error:
            raise self.cannot_build(error) from error
        if {tensor.dtype for tensor in self.tensors.values()} == {torch.float64}:
            model.double()
        fill(model, self.tensors, self.source, strict=strict)
        return model

    def cannot_build(self, error: Exception) -> CheckpointError:
        """Return what is raised where the configuration makes no model here."""
        hint = "; import the package that registers its parts first" * isinstance(error, UnknownNameError)
        return CheckpointError(f"{self.source} describes a model that cannot be built here ({error}){hint}")

    def fill(self, model: Any, *, strict: bool = True) -> None:
        """Fill an existing model; see :func:`load_weights`."""
        ours = model.config
        self.check_same({key: self.config.get(key) for key in ours | self.config if key != "latent"}, ours)
        fill(model, self.tensors, self.source, strict=strict)

    def check_same(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        """Raise CheckpointError where any of these values of the configuration is not the model's."""
        differing = [key for key in theirs if theirs[key] != ours.get(key)]
        if differing:
            listed = ", ".join(f"{key}: file {theirs[key]!r}, model {ours.get(key)!r}" for key in differing)
            raise CheckpointError(
                f"{self.source} is another model's checkpoint ({listed}); build this model with the file's "
                "values, or the file's own model with load_checkpoint"
            )


def load_weights(model: Storable, path: PathLike, *, strict: bool = True) -> None:
    """Fill an existing model from a checkpoint of the same structure.

    The latent may differ where neither has parameters, as none of the library's own has.

    Raises:
        CheckpointError: as for ``load_checkpoint``, or the file's model has another scale, number of
            channels or blocks, sub-network or clamp, or is another architecture's. The model is then left as
            it was.
    """
    read_checkpoint(path).fill(model, strict=strict)


def read_metadata(path: PathLike) -> dict[str, Any]:
    """Return a checkpoint's configuration and metadata without loading its tensors.

    Returns:
        ``{"config": ..., "metadata": ..., "sha256": ...}``.

    Raises:
        CheckpointError: as for ``load_checkpoint``, except that the digest is not verified.
    """
    check_is_file(path)
    with _safetensors_errors(path), safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    facts = _facts(header, path)
    return {name: facts[name] for name in ("config", "metadata", "sha256")}


def verify_checkpoint(path: PathLike) -> None:
    """Check that a file is a whole checkpoint of this library, its digest included; no model is built.

    Raises:
        CheckpointError: as for ``load_checkpoint``, except that nothing is said of what the file fits.
    """
    read_checkpoint(path)


def read_checkpoint(path: PathLike) -> Checkpoint:
    """Read a whole file once.

    Raises:
        CheckpointError: as for ``load_checkpoint``, except that nothing is said of what the file fits.
    """
    check_is_file(path)
    with _safetensors_errors(path):
        content = Path(path).read_bytes()
    return Checkpoint.parse(content, os.fspath(path))


@contextmanager
def _safetensors_errors(source: PathLike) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        hint = "; for the original IRN authors' .pth files there is load_original_irn" * _is_pth(source)
        raise CheckpointError(
            f"{source} is cut short or is no safetensors file ({first_line(error)}){hint}"
        ) from error


def _facts(header: Mapping[str, str], source: PathLike) -> dict[str, Any]:
    """Return the facts of this library in a safetensors file's header."""
    try:
        facts = json.loads(header[_KEY])
    except (KeyError, ValueError):
        facts = None
    if not isinstance(facts, dict) or not facts.keys() >= _FACTS or not isinstance(facts["config"], dict):
        raise CheckpointError(
            f"{source} is a safetensors file but no checkpoint of this library: it carries no configuration "
            f"under {_KEY!r}; save_checkpoint writes one"
        )
    if facts["format"] != _FORMAT:
        raise CheckpointError(f"{source} has format {facts['format']!r}; this version reads format {_FORMAT}")
    return facts


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: PathLike, *, strict: bool) -> None:
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
        raise CheckpointError(f"{source} does not fit the model; {'; '.join(problems)}")
    if problems:
        warnings.warn(f"{source} loaded in part; {'; '.join(problems)}", stacklevel=3)
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
