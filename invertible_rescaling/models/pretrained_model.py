"""Models in folders and on the Hugging Face hub: the methods that all models of this library have."""

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

__all__ = ["PretrainedModel"]


class PretrainedModel(nn.Module):
    """A model that can be kept in a folder, or in a repository of the Hugging Face hub.

    Both hold ``config.json``, ``model.safetensors`` (a checkpoint, as ``save_checkpoint`` makes it) and a
    model card, ``README.md``. Repositories need huggingface_hub: ``pip install invertible_rescaling[hub]``.

    Example:
        >>> import tempfile
        >>> from invertible_rescaling import InvertibleRescaler, iirn_x4
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     iirn_x4(blocks=(1, 1)).save_pretrained(folder)
        ...     InvertibleRescaler.from_pretrained(folder).blocks
        (1, 1)
    """

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The model's structure as plain data."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the untrained model that a ``config`` describes."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Load a model from a folder or from the Hugging Face hub, on the CPU and in evaluation mode.

        Args:
            name_or_path: a folder that :meth:`save_pretrained` filled, or a repository, ``"user/name"``.
            revision: of the repository: a branch, a tag or a commit; ``main`` by default.
            cache_dir: where downloads are kept; the hub's own cache by default.
            force_download: even what is in the cache.
            local_files_only: nothing but what is in the cache.
            token: for private repositories; by default the one that ``hf auth login`` stored.

        Raises:
            CheckpointError: there is no such folder or repository, or it cannot be reached; its file is
                damaged, another class's, or not the one that ``config.json`` is about.
            MissingDependencyError: it is no folder, and huggingface_hub is not installed.
        """
        from invertible_rescaling.weights.hub import load_pretrained

        return load_pretrained(
            name_or_path,
            cls.from_config,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        *,
        weights: Any = None,
        metadata: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Write ``config.json``, ``model.safetensors`` and a model card into a folder.

        Args:
            directory: where to; it is made if need be, and files of these names are replaced.
            weights: the member of a weights enum (``IIRN_X4_Weights.DEFAULT``) that the model was loaded
                with: licence, training data, recipe and figures go into the file and onto the card.
            metadata: what is known of weights of your own: any JSON-able facts. The card shows ``licence``,
                ``training_data``, ``recipe`` and ``metrics`` if they are as in
                :class:`~invertible_rescaling.weights.Weights`.
            dtype: to store; that of ``weights``, or the model's own by default.

        Raises:
            ConfigError: the model's weights are not those of ``weights``, or ``metadata`` is given too.
            CheckpointError: as for ``save_checkpoint``.
            OSError: the folder cannot be written.
        """
        from invertible_rescaling.weights.hub import save_pretrained

        save_pretrained(self, directory, weights=weights, metadata=metadata, dtype=dtype)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        weights: Any = None,
        metadata: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Add a model of invertible_rescaling",
        create_pr: bool = False,
    ) -> str:
        """Put what :meth:`save_pretrained` writes into a repository of the hub, made if need be.

        Args:
            repo_id: ``"user/name"``.
            weights: as for :meth:`save_pretrained`.
            metadata: likewise.
            dtype: likewise.
            private: whether a new repository is; the account's default if ``None``.
            token: that may write; by default the one that ``hf auth login`` stored.
            revision: the branch; ``main`` by default.
            commit_message: of the commit.
            create_pr: ask for a pull request rather than commit.

        Returns:
            The commit's address.

        Raises:
            ConfigError, MissingDependencyError: as for :meth:`save_pretrained`.
            CheckpointError: likewise, or the hub refuses or cannot be reached.
        """
        from invertible_rescaling.weights.hub import push_to_hub

        return push_to_hub(
            self,
            repo_id,
            weights=weights,
            metadata=metadata,
            dtype=dtype,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
