"""How far networks reach: which pixels of its input a pixel of a network's output depends on."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.subnets import ChannelAttention

__all__ = ["declared_reach", "reach_of"]

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
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def reach_of(network: nn.Module) -> int:
    """How many pixels to each side a network's output depends on its input, at most.

    It adds up the reach of what the network is made of: convolutions that keep height and width, activations,
    batch norm in eval mode. What :class:`~invertible_rescaling.ChannelAttention` pools does not count, since
    tiles take it from the whole image. A module that declares ``reach``, an integer, is not looked into. It
    has to declare it where its ``forward`` runs one of its modules twice, or looks at other pixels by
    functions (``F.conv2d``), which cannot be seen from outside. Global pooling of a network's own needs
    independent tiles: no reach is enough for it.

    Raises:
        ConfigError: a module whose reach is neither known nor declared.

    Example:
        >>> from invertible_rescaling import CRDB, DenseBlock
        >>> from invertible_rescaling.reach import reach_of
        >>> reach_of(CRDB(9, 3)), reach_of(DenseBlock(9, 3))
        (8, 5)
    """
    declared = declared_reach(network)
    if declared is not None:
        return declared
    if isinstance(network, nn.Conv2d):
        return _reach_of_convolution(network)
    if _is_pointwise(network):
        return 0
    if isinstance(network, ChannelAttention):
        raise _unknown(network)  # it pools in a way of its own
    # Not children(), which names a module once however often a Sequential runs it.
    parts = [part for part in network._modules.values() if part is not None]
    if not parts and not isinstance(network, _CONTAINERS):
        raise _unknown(network)
    return sum(map(reach_of, parts))


def declared_reach(module: object) -> int | None:
    """The ``reach`` a module declares, or None.

    Raises:
        ConfigError: it is no integer of at least 0.
    """
    reach = getattr(module, "reach", None)
    if reach is None:
        return None
    if isinstance(reach, bool) or not isinstance(reach, int) or reach < 0:
        name = type(module).__name__
        raise ConfigError(f"the reach that {name} declares must be an integer of at least 0, got {reach!r}")
    return reach


def _reach_of_convolution(conv: nn.Conv2d) -> int:
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


def _is_pointwise(module: nn.Module) -> bool:
    if isinstance(module, ChannelAttention):
        return type(module).attention is ChannelAttention.attention
    if isinstance(module, _BatchNorm):
        return not module.training and module.running_mean is not None
    if isinstance(module, _DropoutNd | nn.RReLU):
        return not module.training
    return isinstance(module, _POINTWISE)


def _unknown(module: nn.Module) -> ConfigError:
    mode = " in training mode" if module.training else ""
    return ConfigError(
        f"how far {module}{mode} reaches is not known; give the sub-network an attribute `reach`, the pixels "
        "to each side that it depends on, or pass overlap= to go by independent tiles"
    )
