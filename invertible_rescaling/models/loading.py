"""Models rebuilt from what checkpoints say of them."""

from typing import Any, TypeVar, overload

from torch import nn

from invertible_rescaling.errors import CheckpointError
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.models.super_resolution.base import SuperResolver
from invertible_rescaling.weights.checkpoint import PathLike, read_checkpoint

__all__ = ["AnyModel", "load_checkpoint", "model_of"]

AnyModel = InvertibleRescaler | SuperResolver
"""The models of this library: what checkpoints hold and programs take."""

Model = TypeVar("Model", bound=nn.Module)


@overload
def load_checkpoint(path: PathLike, *, strict: bool = True) -> InvertibleRescaler: ...


@overload
def load_checkpoint(path: PathLike, *, strict: bool = True, kind: type[Model]) -> Model: ...


def load_checkpoint(
    path: PathLike, *, strict: bool = True, kind: type[nn.Module] = InvertibleRescaler
) -> nn.Module:
    """Rebuild the model that a checkpoint describes, on the CPU and in training mode.

    Args:
        path: a file made by :func:`~invertible_rescaling.save_checkpoint`.
        strict: refuse a file with missing or surplus tensors; otherwise they are named in a warning.
        kind: the class of what the file is to hold: a rescaler, or for example
            :class:`~invertible_rescaling.models.super_resolution.SuperResolver`; ``nn.Module`` is anything.

    Raises:
        CheckpointError: no such file; not a safetensors file; no configuration of this library in it, or that
            of another kind of model; cut short or altered (its digest is verified); tensors that do not fit
            its configuration.
    """
    model = read_checkpoint(path).build(model_of, strict=strict)
    if not isinstance(model, kind):
        raise CheckpointError(
            f"{path} holds a model of the class {type(model).__name__}, not {kind.__name__}: see kind="
        )
    return model


def model_of(config: dict[str, Any]) -> AnyModel:
    """Make the untrained model whose ``config`` that is, as checkpoints carry it.

    Raises:
        RescalingError, TypeError: it describes none that can be made here.

    Example:
        >>> from invertible_rescaling import iirn_x4, srcnn_x4
        >>> from invertible_rescaling.models import model_of
        >>> type(model_of(iirn_x4().config)).__name__, type(model_of(srcnn_x4().config)).__name__
        ('InvertibleRescaler', 'SRCNN')
    """
    if "architecture" in config:
        return SuperResolver.from_config(config)
    return InvertibleRescaler.from_config(config)
