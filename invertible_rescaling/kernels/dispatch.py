"""When the fast kernels may run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["fast_kernels"]

_local = threading.local()


@contextmanager
def fast_kernels(enabled: bool) -> Iterator[None]:
    """Switch the kernels on or off within a block, for this thread; off leaves PyTorch's operations.

    Both compute the same sums in another order: results differ by rounding. What recomputes activations in
    the backward pass, :func:`torch.utils.checkpoint.checkpoint` or reversible backpropagation, goes by the
    switch as it stands then: put ``backward()`` inside the block as well.

    Example:
        >>> import torch
        >>> from invertible_rescaling import CRDB
        >>> from invertible_rescaling.kernels import fast_kernels
        >>> with torch.no_grad(), fast_kernels(False):
        ...     CRDB(9, 3)(torch.rand(1, 9, 64, 64)).shape
        torch.Size([1, 3, 64, 64])
    """
    before = getattr(_local, "enabled", True)
    _local.enabled = enabled
    try:
        yield
    finally:
        _local.enabled = before


def is_ordinary(x: Tensor) -> bool:
    """Return whether the kernels are on and nothing traces, compiles or transforms a call."""
    return (
        getattr(_local, "enabled", True)
        and type(x) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and torch.autograd.forward_ad._current_level < 0
    )


def is_batched(gradient: Tensor) -> bool:
    """Return whether a gradient stands for many, as with ``is_grads_batched`` of ``torch.autograd.grad``."""
    functorch = torch._C._functorch
    return functorch.is_legacy_batchedtensor(gradient) or functorch.is_functorch_wrapped_tensor(gradient)


def may_overwrite(x: Tensor) -> bool:
    """Return whether results may be written into parts of a tensor: nothing differentiates the call."""
    return (
        not torch.is_grad_enabled()
        and is_ordinary(x)
        and not torch._C._are_functorch_transforms_active()  # of parameters, say
    )
