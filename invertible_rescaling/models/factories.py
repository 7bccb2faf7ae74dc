"""Factories of the models by name, one below the other: seventeen docstrings, with what makes them above."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, TypeVar

from invertible_rescaling.errors import ConfigError, RescalingError
from invertible_rescaling.models.loading import AnyModel, model_of
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.models.super_resolution.edsr import EDSR
from invertible_rescaling.models.super_resolution.esrgan import ESRGAN
from invertible_rescaling.models.super_resolution.srcnn import SRCNN
from invertible_rescaling.models.super_resolution.srresnet import SRResNet
from invertible_rescaling.registry import register_model
from invertible_rescaling.weights.checkpoint import Checkpoint
from invertible_rescaling.weights.enums import WeightsEnum, choose_weights, open_checkpoint, weights_of

WeightsLike = WeightsEnum | str | PathLike[str] | None
Model = TypeVar("Model", bound=AnyModel)

_KIND = ("architecture", "scale", "channels", "subnet")  # what a named model is, whatever its sizes


def _name(value: Any) -> Any:
    return value.get("name") if isinstance(value, Mapping) else value


def _build(
    name: str, make: type[Model], weights: WeightsLike, overrides: dict[str, Any], **named: Any
) -> Model:
    if "scale" in overrides:
        raise ConfigError(
            f"the scale of a named model is fixed, got scale={overrides['scale']!r}; name another"
        )

    if weights is None:
        return _make(name, make, named, overrides)
    with open_checkpoint(choose_weights(weights, name)) as checkpoint:
        theirs = checkpoint.config
        ours = {"architecture": getattr(make, "architecture", None), "channels": 3, **named}
        kind = [key for key in _KIND if key in ours and key not in overrides]
        differing = {key: theirs.get(key) for key in kind if _name(theirs.get(key)) != _name(ours[key])}
        checkpoint.check_same(differing, ours)
        structure = {key: value for key, value in theirs.items() if key != "architecture"}
        try:
            model = _make(name, make, named | structure, overrides)
        except RescalingError:
            _check_buildable(checkpoint)  # which of the two is at fault, the file or the overrides?
            raise
        checkpoint.fill(model)
    return model


def _make(name: str, make: type[Model], config: dict[str, Any], overrides: dict[str, Any]) -> Model:
    try:
        return make(**(config | overrides))
    except TypeError as error:
        raise ConfigError(f"{name} does not take {overrides!r}: {error}") from error


def _check_buildable(checkpoint: Checkpoint) -> None:
    try:
        model_of(checkpoint.config)
    except (RescalingError, TypeError) as error:
        raise checkpoint.cannot_build(error) from error


def _iirn(scale: int, weights: WeightsLike, overrides: dict[str, Any]) -> InvertibleRescaler:
    name = f"iirn_x{scale}"
    return _build(
        name, InvertibleRescaler, weights, overrides, scale=scale, blocks=8, subnet="crdb", latent="wavelet"
    )


def _irn(scale: int, weights: WeightsLike, overrides: dict[str, Any]) -> InvertibleRescaler:
    name = f"irn_x{scale}"
    return _build(
        name, InvertibleRescaler, weights, overrides, scale=scale, blocks=8, subnet="dense", latent="gaussian"
    )


def _linear(scale: int, weights: WeightsLike, overrides: dict[str, Any]) -> InvertibleRescaler:
    name = f"linear_x{scale}"
    return _build(
        name, InvertibleRescaler, weights, overrides, scale=scale, blocks=2, subnet="conv", latent="wavelet"
    )


def _small(scale: int, weights: WeightsLike, overrides: dict[str, Any]) -> InvertibleRescaler:
    crdb = {"name": "crdb", "growth": 16, "dilation": 1}
    named = {"scale": scale, "blocks": 2, "subnet": crdb, "latent": "wavelet"}
    return _build(f"small_x{scale}", InvertibleRescaler, weights, overrides, **named)


def _has_weights(model: str) -> bool:
    return len(weights_of(model)) > 0


@register_model(pretrained=_has_weights("iirn_x2"))
def iirn_x2(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IIRN at x2: one stage of eight CRDB couplings, wavelet latent (Mo & Chen 2021).

    Args:
        weights: ``None``, ``"DEFAULT"`` or another member of ``IIRN_X2_Weights``, a checkpoint's path or
            its http(s) address; see :mod:`invertible_rescaling.models`.
        **overrides: arguments of :class:`InvertibleRescaler` to change; with weights, which bring their own
            numbers of blocks and options of the sub-network, the latent alone.

    Raises:
        CheckpointError: the file is damaged, foreign or another model's, overrides contradict it, or it
            cannot be had.
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

    Upscaling feeds a fresh sample of the normal distribution for z, as in the paper. The shipped weights are
    trained with zeros for z and bring ``latent="zero"`` with them: in hours of training, networks here have
    not learnt to pass over the noise.

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import irn_x2
        >>> sum(p.numel() for p in irn_x2().parameters())
        1667952
        >>> irn_x2(weights="DEFAULT").config["latent"]
        {'name': 'zero'}
    """
    return _irn(2, weights, overrides)


@register_model(pretrained=_has_weights("irn_x4"))
def irn_x4(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x4: two stages of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    For z at test time see :func:`irn_x2`, whose args and errors these are.

    Example:
        >>> from invertible_rescaling import irn_x4
        >>> sum(p.numel() for p in irn_x4().parameters())
        4355136
    """
    return _irn(4, weights, overrides)


@register_model(pretrained=_has_weights("irn_x8"))
def irn_x8(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """IRN at x8: three stages of eight dense couplings, Gaussian latent (Xiao et al. 2020).

    For z at test time see :func:`irn_x2`, whose args and errors these are.

    Example:
        >>> from invertible_rescaling import irn_x8
        >>> irn_x8(blocks=1).scale
        8
    """
    return _irn(8, weights, overrides)


@register_model(pretrained=_has_weights("linear_x2"))
def linear_x2(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """The linear rescaler at x2: two couplings a stage, each network one 3x3 convolution, wavelet latent.

    The fastest model of its scale: the linear code that larger networks learn first
    (:class:`~invertible_rescaling.Conv`).

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import linear_x2
        >>> sum(p.numel() for p in linear_x2().parameters())
        1500
    """
    return _linear(2, weights, overrides)


@register_model(pretrained=_has_weights("linear_x4"))
def linear_x4(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """The linear rescaler at x4: two couplings a stage, each network one 3x3 convolution, wavelet latent.

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import linear_x4
        >>> sum(p.numel() for p in linear_x4().parameters())
        8976
    """
    return _linear(4, weights, overrides)


@register_model(pretrained=_has_weights("linear_x8"))
def linear_x8(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """The linear rescaler at x8: two couplings a stage, each network one 3x3 convolution, wavelet latent.

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import linear_x8
        >>> linear_x8().blocks
        (2, 2, 2)
    """
    return _linear(8, weights, overrides)


@register_model(pretrained=_has_weights("small_x2"))
def small_x2(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """The small rescaler at x2: two CRDB couplings of growth 16 a stage, without dilation, wavelet latent.

    Between :func:`linear_x2` and :func:`iirn_x2`.

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import small_x2
        >>> small_x2().blocks
        (2,)
    """
    return _small(2, weights, overrides)


@register_model(pretrained=_has_weights("small_x4"))
def small_x4(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """The small rescaler at x4: two CRDB couplings of growth 16 a stage, without dilation, wavelet latent.

    Between :func:`linear_x4` and :func:`iirn_x4`.

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import small_x4
        >>> small_x4().blocks
        (2, 2)
    """
    return _small(4, weights, overrides)


@register_model(pretrained=_has_weights("small_x8"))
def small_x8(weights: WeightsLike = None, **overrides: Any) -> InvertibleRescaler:
    """The small rescaler at x8: two CRDB couplings of growth 16 a stage, without dilation, wavelet latent.

    Between :func:`linear_x8` and :func:`iirn_x8`.

    Args and errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import small_x8
        >>> small_x8().scale
        8
    """
    return _small(8, weights, overrides)


@register_model(pretrained=_has_weights("srcnn_x4"))
def srcnn_x4(weights: WeightsLike = None, **overrides: Any) -> SRCNN:
    """SRCNN 9-1-5 on RGB at x4 (Dong et al. 2014), for comparison: 20.1K parameters.

    Args:
        weights: as for :func:`iirn_x2`.
        **overrides: arguments of :class:`~invertible_rescaling.models.super_resolution.SRCNN` to change.

    Errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import srcnn_x4
        >>> sum(p.numel() for p in srcnn_x4().parameters())
        20099
    """
    return _build("srcnn_x4", SRCNN, weights, overrides, scale=4)


@register_model(pretrained=_has_weights("srresnet_x4"))
def srresnet_x4(weights: WeightsLike = None, **overrides: Any) -> SRResNet:
    """SRResNet of 16 blocks without batch norm at x4 (Ledig et al. 2017), for comparison: 1.52M parameters.

    Args:
        weights: as for :func:`iirn_x2`.
        **overrides: arguments of :class:`~invertible_rescaling.models.super_resolution.SRResNet` to change.

    Errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import srresnet_x4
        >>> sum(p.numel() for p in srresnet_x4().parameters())
        1517571
    """
    return _build("srresnet_x4", SRResNet, weights, overrides, scale=4)


@register_model(pretrained=_has_weights("srgan_x4"))
def srgan_x4(weights: WeightsLike = None, **overrides: Any) -> SRResNet:
    """SRGAN at x4: :func:`srresnet_x4` as the generator, meant for adversarially trained weights.

    Args:
        weights: as for :func:`iirn_x2`.
        **overrides: arguments of :class:`~invertible_rescaling.models.super_resolution.SRResNet` to change.

    Errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import srgan_x4
        >>> sum(p.numel() for p in srgan_x4().parameters())
        1517571
    """
    return _build("srgan_x4", SRResNet, weights, overrides, scale=4)


@register_model(pretrained=_has_weights("edsr_x4"))
def edsr_x4(weights: WeightsLike = None, **overrides: Any) -> EDSR:
    """EDSR's baseline at x4 (Lim et al. 2017), for comparison: 1.52M parameters.

    Args:
        weights: as for :func:`iirn_x2`.
        **overrides: arguments of :class:`~invertible_rescaling.models.super_resolution.EDSR` to change.

    Errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import edsr_x4
        >>> sum(p.numel() for p in edsr_x4().parameters())
        1517571
    """
    return _build("edsr_x4", EDSR, weights, overrides, scale=4)


@register_model(pretrained=_has_weights("esrgan_x4"))
def esrgan_x4(weights: WeightsLike = None, **overrides: Any) -> ESRGAN:
    """ESRGAN's generator of 23 RRDBs at x4 (Wang et al. 2018), for comparison: 16.7M parameters.

    Args:
        weights: as for :func:`iirn_x2`.
        **overrides: arguments of :class:`~invertible_rescaling.models.super_resolution.ESRGAN` to change.

    Errors are those of :func:`iirn_x2`.

    Example:
        >>> from invertible_rescaling import esrgan_x4
        >>> sum(p.numel() for p in esrgan_x4().parameters())
        16697987
    """
    return _build("esrgan_x4", ESRGAN, weights, overrides, scale=4)
