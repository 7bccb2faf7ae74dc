"""The condition for kernels to replace modules: each computes what its class does."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from invertible_rescaling.hooks import any_global_hook, has_hooks
from invertible_rescaling.kernels.dispatch import is_ordinary
from invertible_rescaling.kernels.narrow_conv import OutputConv

__all__: list[str] = []  # for the sub-networks alone

_LEAST_PIXELS = 40 * 40  # of a plane, whatever the batch: below, training is faster by the plain modules


def usable(x: Tensor, convs: Sequence[nn.Module], activation: nn.Module, around: Iterable[nn.Module]) -> bool:
    """Return whether the kernels may compute a densely connected sub-network on this input.

    They may on CPU, in float32, on images large enough to pay, and only in place of modules that nobody has
    replaced, patched, hooked or handed the tensors of a function transform.

    Args:
        x: ``(B, C, H, W)``.
        convs: all 3x3 convolutions.
        activation: behind the hidden ones.
        around: the other modules of the sub-network, whose types the caller has checked.
    """
    return (
        is_ordinary(x)
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.dim() == 4
        and x.shape[0] > 0
        and x.shape[2] * x.shape[3] >= max(1, _LEAST_PIXELS)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not any_global_hook()
        and type(activation) is nn.LeakyReLU
        and activation.negative_slope >= 0  # else the maximum of the result is not that of the sums
        and is_pristine(activation)
        and all(map(_is_as_made, convs))
        and all(getattr(conv, "dilation", None) == (1, 1) for conv in convs[-1:])
        and all(map(is_pristine, around))
    )


def is_pristine(module: nn.Module) -> bool:
    """Return whether calling a module calls its class's own methods, unheard, with ordinary parameters."""
    parameters = (tensor for tensor in module._parameters.values() if tensor is not None)
    kind = type(module)
    patched = any(callable(getattr(kind, name, None)) for name in vars(module))
    changed = module._compiled_call_impl is not None or patched or has_hooks(module)
    return not changed and all(map(is_ordinary, parameters))


def _is_as_made(conv: nn.Module) -> bool:
    return (
        isinstance(conv, nn.Conv2d)
        and type(conv) in (nn.Conv2d, OutputConv)
        and conv.weight.dtype == torch.float32
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.groups == 1
        and conv.dilation[0] == conv.dilation[1]
        and conv.padding == conv.dilation
        and conv.padding_mode == "zeros"
        and is_pristine(conv)
    )


def mixes_channels(conv: nn.Module) -> bool:
    """Return whether a module is a plain 1x1 convolution, and so a matrix."""
    return bool(
        type(conv) is nn.Conv2d
        and conv.weight.dtype == torch.float32
        and conv.kernel_size == conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
    )
