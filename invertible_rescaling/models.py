"""The published models by name: IRN and IIRN at scales 2, 4 and 8.

Each factory takes ``weights`` and overrides for any argument of
:class:`~invertible_rescaling.InvertibleRescaler`. ``weights`` is one of

- ``None``, the default: untrained. Every coupling is then the identity: LR is the mean over blocks of pixels,
  and SR what the latent alone makes of it;
- ``"DEFAULT"`` or ``"V1"``, a member of the model's enum in :mod:`invertible_rescaling.weights` or its name:
  trained weights that came with the package, and the configuration they were trained with;
- the path of a checkpoint that ``save_checkpoint`` made for the same configuration;
- its ``http(s)`` address. The file is kept in torch's hub cache; ``#sha256=...`` at the address's end, or the
  first digits of the hash in its name (``name-1a2b3c4d.safetensors``), are checked.

Whatever they are, all that is read is verified, and nothing in it is executed.
"""

from os import PathLike
from typing import Any

from invertible_rescaling.checkpoint import load_weights
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.registry import register_model
from invertible_rescaling.rescaler import InvertibleRescaler
from invertible_rescaling.weights import WeightsEnum, choose_weights, weights_file, weights_of

__all__ = ["iirn_x2", "iirn_x4", "iirn_x8", "irn_x2", "irn_x4", "irn_x8"]

WeightsLike = WeightsEnum | str | PathLike[str] | None


def _build(name: str, weights: WeightsLike, overrides: dict[str, Any], **defaults: Any) -> InvertibleRescaler:
    if "scale" in overrides:
        raise ConfigError(
            f"the scale of a named model is fixed, got scale={overrides['scale']!r}; name another"
        )
    chosen = choose_weights(weights, name)
    trained = chosen.value.config if isinstance(chosen, WeightsEnum) else {}
    rescaler = InvertibleRescaler(**(defaults | trained | overrides))
    if chosen is not None:
        load_weights(rescaler, weights_file(chosen))
    return rescaler


def _iirn(scale: int, weights: WeightsLike, overrides: dict[str, Any]) -> InvertibleRescaler:
    name = f"iirn_x{scale}"
    return _build(name, weights, overrides, scale=scale, blocks=8, subnet="crdb", latent="wavelet")


def _irn(scale: int, weights: WeightsLike, overrides: dict[str, Any]) -> InvertibleRescaler:
    name = f"irn_x{scale}"
    return _build(name, weights, overrides, scale=scale, blocks=8, subnet="dense", latent="gaussian")


def _has_weights(model: str) -> bool:
    return len(weights_of(model)) > 0


@register_model(pretrained=_has_weights("iirn_x2"))
def iirn_x2(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IIRN at x2: one stage of eight CRDB couplings, wavelet latent (Mo & Chen 2021).

    Args:
        weights: ``None``, ``"DEFAULT"`` or another member of ``IIRN_X2_Weights``, a checkpoint's path or
            its http(s) address; see :mod:`invertible_rescaling.models`.
        **overrides: arguments of :class:`InvertibleRescaler` to change; with weights, the latent alone.

    Raises:
        CheckpointError: the file is damaged, foreign or another model's, or cannot be had.
        ConfigError: overrides that do not fit together.
        UnknownNameError: no weights, sub-network or latent of that name.

    Example:
        >>> from invertible_rescaling import iirn_x2
        >>> sum(p.numel() for p in iirn_x2().parameters())
        952344
    """
    return _iirn(2, weights, overrides)


@register_model(pretrained=_has_weights("iirn_x4"))
def iirn_x4(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
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


@register_model(pretrained=_has_weights("iirn_x8"))
def iirn_x8(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IIRN at x8: three stages of eight CRDB couplings, wavelet latent (Mo & Chen 2021).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import iirn_x8
        >>> iirn_x8(blocks=1).latent_channels
        189
    """
    return _iirn(8, weights, overrides)


@register_model(pretrained=_has_weights("irn_x2"))
def irn_x2(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x2: one stage of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import irn_x2
        >>> sum(p.numel() for p in irn_x2().parameters())
        1667952
    """
    return _irn(2, weights, overrides)


@register_model(pretrained=_has_weights("irn_x4"))
def irn_x4(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x4: two stages of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import irn_x4
        >>> sum(p.numel() for p in irn_x4().parameters())
        4355136
    """
    return _irn(4, weights, overrides)


@register_model(pretrained=_has_weights("irn_x8"))
def irn_x8(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x8: three stages of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import irn_x8
        >>> irn_x8(blocks=1).scale
        8
    """
    return _irn(8, weights, overrides)
