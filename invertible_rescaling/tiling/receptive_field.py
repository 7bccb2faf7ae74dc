"""How far networks reach: which pixels of its input a pixel of a network's output depends on."""

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.layers.base import InvertibleModule
from invertible_rescaling.layers.coupling_step import CouplingLayer
from invertible_rescaling.layers.haar import HaarDownsampling
from invertible_rescaling.layers.hooks import hooks_of, overridden
from invertible_rescaling.layers.subnet_parts import ChannelAttention, Conv3x3, HiddenConvs
from invertible_rescaling.layers.subnets import CRDB, RRDB, Conv, DenseBlock

__all__ = ["declared_receptive_radius", "receptive_radius_of"]

# Modules of exactly these classes are known, subclasses are not: they may compute anything.
_POINTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Softshrink,
    nn.Tanhshrink,
    nn.Threshold,
    nn.Hardtanh,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Softmax2d,
)
_IN_EVAL_MODE = (
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.Dropout,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.RReLU,
)
# Their forward runs each part once, or not at all.
_MADE_OF_PARTS = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    ChannelAttention,
    Conv,
    CRDB,
    DenseBlock,
    RRDB,
    HiddenConvs,
)


def as_coupling(index: int, layer: InvertibleModule) -> CouplingLayer | None:
    """Return a layer of a flow that tiles can go through by its steps; ``None`` for a Haar step.

    Raises:
        ConfigError: it is neither, takes a condition, or has hooks or a patch.
    """
    who = f"layer {index}, {type(layer).__name__},"
    found = hooks_of(layer)
    if found is not None:
        raise not_followed(f"{who} {found}")
    if type(layer) is HaarDownsampling:
        return None
    if not isinstance(layer, CouplingLayer):
        raise not_followed(f"{who} is neither a CouplingLayer nor a HaarDownsampling")
    if layer.condition_channels:
        raise not_followed(f"{who} takes a condition")
    return layer


def not_followed(why: str) -> ConfigError:
    """Return the error for a bijection that cannot be gone through layer by layer."""
    return ConfigError(
        f"{why}: the bijection cannot be followed layer by layer, so that it cannot run in exact tiles and "
        "its receptive field is not known; pass overlap= to go by independent tiles"
    )


def receptive_radius_of(network: nn.Module) -> int:
    """How many pixels to each side a network's output depends on its input, at most.

    A module that declares ``receptive_radius``, an integer, is believed and not looked into;
    :func:`declared_receptive_radius` says when that counts. Others are looked into if they are of a class
    that is known, no subclass of one, and neither patched nor hooked: the library's own sub-networks and
    :class:`~invertible_rescaling.ChannelAttention`, ``nn.Sequential``, ``nn.Conv2d`` that keep height and
    width, activations, batch norm and dropout in eval mode. They may have parametrizations. The radii of
    their parts add up. What ``ChannelAttention`` pools does not count, since tiles take it from the whole
    image. Global pooling of a network's own needs independent tiles: no receptive radius is enough for it.

    Raises:
        ConfigError: the receptive radius of a module is neither known nor declared, or a module is to be put
            in eval mode.

    Example:
        >>> from invertible_rescaling import CRDB, DenseBlock
        >>> from invertible_rescaling.tiling import receptive_radius_of
        >>> receptive_radius_of(CRDB(9, 3)), receptive_radius_of(DenseBlock(9, 3))
        (8, 5)
    """
    declared = declared_receptive_radius(network)
    if declared is not None:
        return declared
    kind = type_before_parametrizations(network)
    if hooks_of(network) is not None or "attention" in vars(network):
        raise _unknown(network)
    if isinstance(network, Conv3x3):
        return network.dilation
    if kind is nn.Conv2d and isinstance(network, nn.Conv2d):
        return _receptive_radius_of_convolution(network)
    if kind in _POINTWISE:
        return 0
    if kind in _IN_EVAL_MODE:
        return _reach_in_eval_mode(network)
    if kind not in _MADE_OF_PARTS:
        raise _unknown(network)
    # Not children(), which names a module once however often a Sequential runs it.
    return sum(receptive_radius_of(part) for part in network._modules.values() if part is not None)


def declared_receptive_radius(module: nn.Module) -> int | None:
    """The ``receptive_radius`` a module declares, or None.

    An attribute of the module itself counts. One of its class counts if no class below the one that declares
    it overrides ``forward``, and the module is neither patched nor hooked: else it may speak of another
    computation.

    Raises:
        ConfigError: it is no integer of at least 0.
    """
    radius = getattr(module, "receptive_radius", None)
    if radius is None:
        return None
    if "receptive_radius" not in vars(module):
        known = next((kind for kind in type(module).__mro__ if "receptive_radius" in vars(kind)), nn.Module)
        if overridden(type(module), known, ("__call__", "forward")) or hooks_of(module):
            return None
    if isinstance(radius, bool) or not isinstance(radius, int) or radius < 0:
        name = type(module).__name__
        raise ConfigError(
            f"the receptive_radius that {name} declares must be an integer of at least 0, got {radius!r}"
        )
    return radius


def _receptive_radius_of_convolution(conv: nn.Conv2d) -> int:
    spans = [(size - 1) * gap for size, gap in zip(conv.kernel_size, conv.dilation, strict=True)]
    if conv.padding == "same":
        keeps = True
    elif conv.padding == "valid":
        keeps = not any(spans)
    else:
        keeps = [2 * int(padding) for padding in conv.padding] == spans
    if not keeps or any(stride != 1 for stride in conv.stride) or conv.padding_mode == "circular":
        raise _unknown(conv)
    return max(span - span // 2 for span in spans)


def _reach_in_eval_mode(module: nn.Module) -> int:
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module.running_mean is None:
        raise _unknown(module)
    if module.training:
        raise ConfigError(
            f"{module} is in training mode, in which tiles cannot give what the whole image gives; call "
            "eval() on the model"
        )
    return 0


def _unknown(module: nn.Module) -> ConfigError:
    return ConfigError(
        f"how far {module} reaches is not known: only the library's own sub-networks, nn.Sequential, "
        "convolutions that keep height and width, activations and batch norm are looked into, and only if "
        "they are not subclassed, patched or hooked; give the sub-network an attribute `receptive_radius`, "
        "the pixels to each side that it depends on, or pass overlap= to go by independent tiles"
    )
