"""Models in folders and on the Hugging Face hub, by huggingface_hub's own mixin.

Users call the methods of :class:`~invertible_rescaling.models.PretrainedModel`, which every model has. The
mixin is no base class of the models: the core does without huggingface_hub, and a model's class does not
depend on whether it is installed.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from invertible_rescaling.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    RescalingError,
    first_line,
)
from invertible_rescaling.files import write_atomically
from invertible_rescaling.weights.checkpoint import (
    read,
    read_metadata,
    rebuild,
    save_checkpoint,
)
from invertible_rescaling.weights.enums import Weights, WeightsEnum
from invertible_rescaling.weights.model_card import model_card

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
except ImportError as error:
    raise MissingDependencyError(
        "models on the Hugging Face hub need huggingface_hub: pip install 'invertible_rescaling[hub]'"
    ) from error

__all__: list[str] = []  # for PretrainedModel alone

Loaded = TypeVar("Loaded", bound=nn.Module)
_CONFIG, _FILE = "config.json", "model.safetensors"
_KEPT = ("licence", "training_data", "recipe", "metrics", "parameters", "multiply_adds")


class _Carried(PyTorchModelHubMixin):
    """A model on its way to or from a folder, with what is known of its weights."""

    def __init__(self, model: Any, facts: Mapping[str, Any], dtype: torch.dtype | None) -> None:
        self.model, self.facts, self.dtype = model, facts, dtype

    def _save_pretrained(self, save_directory: Path) -> None:
        save_checkpoint(self.model, save_directory / _FILE, metadata=self.facts, dtype=self.dtype)
        # After the weights: a folder that is half-written says that the two do not go together.
        content = json.dumps(self.model.config, sort_keys=True, indent=2)
        write_atomically(save_directory / _CONFIG, content.encode())
        self.generate_model_card().save(save_directory / "README.md")

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        make: Callable[[Mapping[str, Any]], Loaded],
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: Any,
    ) -> Loaded:
        if os.path.isdir(model_id):
            folder = Path(model_id)
        else:
            how: dict[str, Any] = {
                "revision": revision,
                "cache_dir": cache_dir,
                "force_download": force_download,
                "local_files_only": local_files_only,
                "token": token,
            }
            for name in (_CONFIG, _FILE):
                folder = Path(hf_hub_download(repo_id=model_id, filename=name, **how)).parent
        _check_config(folder)
        return rebuild(make, folder / _FILE).eval()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        return ModelCard(model_card(self.model, self.facts))


def _check_config(folder: Path) -> None:
    path = folder / _CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({first_line(error)})") from error
    if found != read_metadata(folder / _FILE)["config"]:
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
    try:
        model: Any = _Carried.from_pretrained(name, make=make, **options)
    except RescalingError:
        raise
    except Exception as error:  # of the hub and of the network, which have many
        raise CheckpointError(
            f"there is no folder {name!r}, and from the hub: {first_line(error)}"
        ) from error
    return model  # type: ignore[no-any-return]


def save_pretrained(
    model: Any,
    directory: str | os.PathLike[str],
    *,
    weights: Any = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """See :meth:`PretrainedModel.save_pretrained`."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    _carried(model, weights, metadata, dtype)._save_pretrained(Path(directory))


def push_to_hub(
    model: Any,
    repo_id: str,
    *,
    weights: Any = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> str:
    """See :meth:`PretrainedModel.push_to_hub`."""
    carried = _carried(model, weights, metadata, dtype)
    try:
        address: str = carried.push_to_hub(repo_id, **options)
    except (RescalingError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"the hub did not take {repo_id!r}: {first_line(error)}") from error
    return address


def _carried(
    model: Any, weights: Any, metadata: Mapping[str, Any] | None, dtype: torch.dtype | None
) -> _Carried:
    if weights is None:
        return _Carried(model, dict(metadata or {}), dtype)
    if not isinstance(weights, WeightsEnum):
        raise ConfigError(
            f"weights= is a member such as IIRN_X4_Weights.DEFAULT, got {weights!r}; for others see metadata="
        )
    if metadata is not None:
        raise ConfigError("weights= brings its own metadata; give one of the two")
    known: Weights = weights.value
    _check_same(model, weights)
    facts = {key: value for key, value in asdict(known).items() if key in _KEPT}
    return _Carried(model, facts, dtype or getattr(torch, known.dtype))


def _check_same(model: Any, weights: WeightsEnum) -> None:
    theirs, facts = read(weights.locate())
    ours = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    same = model.config == facts["config"] and theirs.keys() == ours.keys()
    if not same or not all(torch.equal(mine, theirs[name].to(mine.dtype)) for name, mine in ours.items()):
        raise ConfigError(
            f"the model is not the one of {weights}: another structure, or weights that have changed since; "
            "give what is known of it as metadata="
        )
