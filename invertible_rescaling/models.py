"""The published models by name: IRN and IIRN at scales 2, 4 and 8.

Each factory takes ``weights`` (``None`` for an untrained model, or the path of a checkpoint that
``save_checkpoint`` made for the same configuration) and overrides for any argument of
:class:`~invertible_rescaling.InvertibleRescaler`. Untrained, every coupling is the identity: LR is then the
mean over blocks of pixels, and SR what the latent alone makes of it.
"""

from pathlib import Path
from typing import Any

from invertible_rescaling.checkpoint import load_weights
from invertible_rescaling.errors import CheckpointError, ConfigError
from invertible_rescaling.registry import register_model
from invertible_rescaling.rescaler import InvertibleRescaler

__all__ = ["iirn_x2", "iirn_x4", "iirn_x8", "irn_x2", "irn_x4", "irn_x8"]

Weights = str | Path | None


def _build(weights: Weights, overrides: dict[str, Any], **defaults: Any) -> InvertibleRescaler:
    if "scale" in overrides:
        raise ConfigError(
            f"the scale of a named model is fixed, got scale={overrides['scale']!r}; name another"
        )
    model = InvertibleRescaler(**(defaults | overrides))
    if weights is not None:
        if not isinstance(weights, str | Path) or not Path(weights).is_file():
            raise CheckpointError(
                f"weights takes None or the path of a checkpoint, got {weights!r}, where there is no file; "
                "this version ships no pretrained weights"
            )
        load_weights(model, weights)
    return model


def _iirn(scale: int, weights: Weights, overrides: dict[str, Any]) -> InvertibleRescaler:
    return _build(weights, overrides, scale=scale, blocks=8, subnet="crdb", latent="wavelet")


def _irn(scale: int, weights: Weights, overrides: dict[str, Any]) -> InvertibleRescaler:
    return _build(weights, overrides, scale=scale, blocks=8, subnet="dense", latent="gaussian")


@register_model
def iirn_x2(weights: Weights = None, **overrides: Any) -> InvertibleRescaler:
    """IIRN at x2: one stage of eight CRDB couplings, wavelet latent (Mo & Chen 2021).

    Args:
        weights: ``None`` or a checkpoint's path.
        **overrides: arguments of :class:`InvertibleRescaler` to change.

    Raises:
        CheckpointError: the file is damaged, foreign or another model's.
        ConfigError, UnknownNameError: overrides that do not fit together.

    Example:
        >>> from invertible_rescaling import iirn_x2
        >>> sum(p.numel() for p in iirn_x2().parameters())
        952344
    """
    return _iirn(2, weights, overrides)


@register_model
def iirn_x4(weights: Weights = None, **overrides: Any) -> InvertibleRescaler:
    """IIRN at x4: two stages of eight CRDB couplings, wavelet latent (Mo & Chen 2021, Table 2).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import iirn_x4
        >>> sum(p.numel() for p in iirn_x4().parameters())
        2683360
        >>> iirn_x4(blocks=(2, 2), latent="zero").blocks
        (2, 2)
    """
    return _iirn(4, weights, overrides)


@register_model
def iirn_x8(weights: Weights = None, **overrides: Any) -> InvertibleRescaler:
    """IIRN at x8: three stages of eight CRDB couplings, wavelet latent (Mo & Chen 2021).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import iirn_x8
        >>> iirn_x8(blocks=1).latent_channels
        189
    """
    return _iirn(8, weights, overrides)


@register_model
def irn_x2(weights: Weights = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x2: one stage of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import irn_x2
        >>> sum(p.numel() for p in irn_x2().parameters())
        1667952
    """
    return _irn(2, weights, overrides)


@register_model
def irn_x4(weights: Weights = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x4: two stages of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import irn_x4
        >>> sum(p.numel() for p in irn_x4().parameters())
        4355136
    """
    return _irn(4, weights, overrides)


@register_model
def irn_x8(weights: Weights = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x8: three stages of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import irn_x8
        >>> irn_x8(blocks=1).scale
        8
    """
    return _irn(8, weights, overrides)
