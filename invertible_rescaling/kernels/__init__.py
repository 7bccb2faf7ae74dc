"""Fast CPU kernels of the sub-networks, and the switch for them."""

from invertible_rescaling.kernels.dispatch import fast_kernels

__all__ = ["fast_kernels"]
