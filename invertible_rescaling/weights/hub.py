"""Models in folders and on the Hugging Face hub.

Users call the methods of :class:`~invertible_rescaling.models.PretrainedModel`, which every model has.
Folders need nothing more than the library, repositories huggingface_hub.
"""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from torch import nn

from invertible_rescaling.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    first_line,
)
from invertible_rescaling.files import write_atomically
from invertible_rescaling.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from invertible_rescaling.weights.enums import Weights, WeightsEnum, open_checkpoint
from invertible_rescaling.weights.model_card import model_card

__all__: list[str] = []  # for PretrainedModel alone

Loaded = TypeVar("Loaded", bound=nn.Module)
_CONFIG, _FILE = "config.json", "model.safetensors"
_KEPT = ("licence", "training_data", "recipe", "metrics", "parameters", "multiply_adds")


def _check_config(path: Path, checkpoint: Checkpoint) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({first_line(error)})") from error
    if found != checkpoint.config:
        raise CheckpointError(f"{path} is about another model than {_FILE} beside it")


def load_pretrained(
    name_or_path: str | os.PathLike[str], make: Callable[[Mapping[str, Any]], Loaded], **options: Any
) -> Loaded:
    """See :meth:`PretrainedModel.from_pretrained`."""
    name = os.fspath(name_or_path)
    if not os.path.isdir(name) and (os.path.exists(name) or name.count("/") > 1 or not name):
        is_file = (
            "a file; load_checkpoint reads it" if os.path.exists(name) else "no folder, and no user/name"
        )
        raise CheckpointError(f"{name!r} is {is_file}")
    folder = Path(name)
    if not folder.is_dir():
        try:
            for file in (_CONFIG, _FILE):
                folder = Path(_hub().hf_hub_download(repo_id=name, filename=file, **options)).parent
        except (MemoryError, MissingDependencyError):
            raise
        except Exception as error:  # of the hub and of the network, which have many
            raise CheckpointError(
                f"there is no folder {name!r}, and from the hub: {first_line(error)}"
            ) from error
    checkpoint = read_checkpoint(folder / _FILE)
    _check_config(folder / _CONFIG, checkpoint)
    return checkpoint.build(make).eval()


def save_pretrained(
    model: Any,
    directory: str | os.PathLike[str],
    *,
    weights: Any = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """See :meth:`PretrainedModel.save_pretrained`."""
    facts: Mapping[str, Any] = dict(metadata or {})
    if weights is not None:
        if not isinstance(weights, WeightsEnum):
            raise ConfigError(
                f"weights= is a member such as IIRN_X4_Weights.DEFAULT, got {weights!r}; for others see "
                "metadata="
            )
        if metadata is not None:
            raise ConfigError("weights= brings its own metadata; give one of the two")
        known: Weights = weights.value
        _check_same(model, weights)
        facts = {key: value for key, value in asdict(known).items() if key in _KEPT}
        dtype = dtype or getattr(torch, known.dtype)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(model, folder / _FILE, metadata=facts, dtype=dtype)
    # After the weights: a folder that is half-written says that the two do not go together.
    write_atomically(folder / _CONFIG, json.dumps(model.config, sort_keys=True, indent=2).encode())
    write_atomically(folder / "README.md", model_card(model, facts).encode())


def push_to_hub(
    model: Any,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str,
    create_pr: bool = False,
    **facts: Any,
) -> str:
    """See :meth:`PretrainedModel.push_to_hub`."""
    hub = _hub().HfApi(token=token)
    with TemporaryDirectory() as folder:
        save_pretrained(model, folder, **facts)
        try:
            repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
            commit = hub.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
            )
        except MemoryError:
            raise
        except Exception as error:
            raise CheckpointError(f"the hub did not take {repo_id!r}: {first_line(error)}") from error
    return str(commit.commit_url)


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingDependencyError(
            "models on the Hugging Face hub need huggingface_hub: pip install 'invertible_rescaling[hub]'"
        ) from error


def _check_same(model: Any, weights: WeightsEnum) -> None:
    with open_checkpoint(weights) as checkpoint:
        theirs = checkpoint.tensors
    ours = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    same = model.config == checkpoint.config and theirs.keys() == ours.keys()
    if not same or not all(torch.equal(mine, theirs[name].to(mine.dtype)) for name, mine in ours.items()):
        raise ConfigError(
            f"the model is not the one of {weights}: another structure, or weights that have changed since; "
            "give what is known of it as metadata="
        )
