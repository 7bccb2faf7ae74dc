r"""Coupling layers: bijections built from arbitrary networks phi, rho and eta.

The input is split by channel into x1 (the first ``split`` channels, the low-pass image of a rescaler)
and x2 (the rest). The networks need no inverse of their own, and may read a condition beside their half.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.layers.coupling_step import CouplingLayer, CouplingStep

__all__ = ["AdditiveCoupling", "AffineCoupling", "SubnetFactory"]

SubnetFactory = Callable[[int, int], nn.Module]


class _TwoHalves(CouplingLayer):
    """A coupling that changes x1 by a network of x2, and then x2 by networks of the new x1."""

    def __init__(self, channels: int, split: int, condition_channels: int) -> None:
        if not isinstance(channels, int) or not isinstance(split, int) or not 0 < split < channels:
            raise ConfigError(
                f"{type(self).__name__} needs integers 0 < split < channels, "
                f"got split={split!r} and channels={channels!r}"
            )
        super().__init__(channels, condition_channels)
        self.split = split
        self._first, self._second = slice(0, split), slice(split, channels)

    def _make(self, subnet: SubnetFactory, in_channels: int, out_channels: int) -> nn.Module:
        if isinstance(subnet, nn.Module) or not callable(subnet):
            made = isinstance(subnet, nn.Module)
            given = f"a {type(subnet).__name__} that is made" if made else repr(subnet)
            raise ConfigError(
                f"{type(self).__name__} takes a factory subnet(in_channels, out_channels) -> Module, such as "
                f"CRDB or partial(CRDB, growth=16), got {given}; InvertibleRescaler takes names"
            )
        return subnet(in_channels + self.condition_channels, out_channels)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, split={self.split}" + (
            f", condition_channels={self.condition_channels}" if self.condition_channels else ""
        )


class AffineCoupling(_TwoHalves):
    r"""IRN's affine coupling, with a bounded log-scale.

    .. math::
        y_1 &= x_1 + \phi(x_2) \\
        y_2 &= x_2 \odot \exp(s) + \eta(y_1), \qquad s = \text{clamp} \cdot \tanh(\rho(y_1) / 2)

    and, in closed form, :math:`x_2 = (y_2 - \eta(y_1)) \odot \exp(-s)`, :math:`x_1 = y_1 - \phi(x_2)`.
    The log-determinant is the sum of s. Under autocast only phi, rho and eta run in half precision.

    With ``condition_channels`` the networks read a condition c behind their half of the state:
    :math:`\phi(x_2, c)`, :math:`\rho(y_1, c)`, :math:`\eta(y_1, c)`. For each c the coupling is a bijection
    of x; the inverse takes the c that the forward took.

    References:
        Xiao et al. 2020, *Invertible Image Rescaling*, eq. 2-3; Dinh et al. 2017, *Real NVP*; conditions:
        Ardizzone et al. 2019, *Guided Image Generation with Conditional Invertible Neural Networks*, sec. 3.

    Shapes:
        ``(B, channels, H, W) -> (B, channels, H, W)``, float32 or float64; the condition
        ``(B, condition_channels, H, W)``, or ``(B, condition_channels)`` for one vector at all pixels, in the
        dtype of the state.

    Args:
        channels: channels of the state.
        split: channels of x1.
        subnet: makes a network, ``subnet(in_channels, out_channels) -> Module`` that keeps H and W; called
            three times, for phi, rho and eta.
        clamp: the bound of abs(s), so each coupling scales by at most e**clamp.
        condition_channels: of the condition, added to the ``in_channels`` of all three networks; 0 for none.

    Raises:
        ConfigError: ``split`` is not inside ``channels``, ``clamp`` is not a positive number, or a condition
            is missing or given to a coupling that takes none.
        ShapeError: the input, the condition, or what a sub-network returns, has the wrong shape.
        DtypeError: the input is not float32 or float64, or the condition of another dtype.

    Example:
        >>> import torch
        >>> from invertible_rescaling import CRDB, AffineCoupling
        >>> coupling = AffineCoupling(12, 3, CRDB)
        >>> x = torch.rand(2, 12, 8, 8)
        >>> torch.equal(coupling(x), x)  # untrained, a coupling is the identity
        True
        >>> coupling = AffineCoupling(12, 3, CRDB, condition_channels=5)
        >>> y = coupling(x, torch.rand(2, 5, 8, 8))  # a map
        >>> one_hot = torch.eye(5)[[0, 3]]
        >>> coupling.inverse(coupling(x, one_hot), one_hot).shape  # a vector
        torch.Size([2, 12, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        split: int,
        subnet: SubnetFactory,
        clamp: float = 1.0,
        *,
        condition_channels: int = 0,
    ) -> None:
        super().__init__(channels, split, condition_channels)
        if isinstance(clamp, bool) or not isinstance(clamp, int | float) or not 0 < clamp < math.inf:
            raise ConfigError(f"AffineCoupling needs a finite clamp above 0, got {clamp!r}")
        self.clamp = float(clamp)
        self.phi = self._make(subnet, channels - split, split)
        self.rho = self._make(subnet, split, channels - split)
        self.eta = self._make(subnet, split, channels - split)

    def steps(self) -> tuple[CouplingStep, CouplingStep]:
        """Return the change of x1 by phi, and that of x2 by rho and eta."""
        return (
            CouplingStep(self._second, self._first, (self.phi,), torch.add, torch.sub),
            CouplingStep(
                self._first, self._second, (self.rho, self.eta), self._scale, self._unscale, self._log_scale
            ),
        )

    def _log_scale(self, rho: Tensor, eta: Tensor) -> Tensor:
        return self.clamp * torch.tanh(rho / 2)

    def _scale(self, x2: Tensor, rho: Tensor, eta: Tensor, *, out: Tensor | None = None) -> Tensor:
        if out is not None:
            return torch.addcmul(eta, x2, self._scale_in_place(rho, 2), out=out)
        return torch.addcmul(eta, x2, torch.exp(self._log_scale(rho, eta)))

    def _unscale(self, y2: Tensor, rho: Tensor, eta: Tensor, *, out: Tensor | None = None) -> Tensor:
        if out is not None:  # tanh is odd to the last bit
            return torch.mul(torch.sub(y2, eta, out=out), self._scale_in_place(rho, -2), out=out)
        return torch.mul(y2 - eta, torch.exp(-self._log_scale(rho, eta)))

    def _scale_in_place(self, rho: Tensor, divisor: int) -> Tensor:
        """exp(s), or exp(-s) for -2, in one tensor: where nothing is differentiated."""
        scale = (rho / divisor).tanh_()
        if self.clamp != 1:
            scale.mul_(self.clamp)
        return scale.exp_()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, clamp={self.clamp}"


class AdditiveCoupling(_TwoHalves):
    r"""Volume-preserving coupling: :class:`AffineCoupling` without the scale.

    .. math::
        y_1 = x_1 + \phi(x_2), \qquad y_2 = x_2 + \eta(y_1)

    References:
        Dinh et al. 2015, *NICE*; Xiao et al. 2020, section 3.2.

    Shapes:
        ``(B, channels, H, W) -> (B, channels, H, W)``, float32 or float64; the log-determinant is 0.

    Args:
        channels: channels of the state.
        split: channels of x1.
        subnet: as for :class:`AffineCoupling`; called twice, for phi and eta.
        condition_channels: as for :class:`AffineCoupling`.

    Raises:
        ConfigError, ShapeError, DtypeError: as for :class:`AffineCoupling`.

    Example:
        >>> import torch
        >>> from invertible_rescaling import AdditiveCoupling, DenseBlock
        >>> y, log_det = AdditiveCoupling(4, 1, DenseBlock).forward_with_log_det(torch.rand(2, 4, 8, 8))
        >>> log_det
        tensor([0., 0.])
    """

    def __init__(
        self, channels: int, split: int, subnet: SubnetFactory, *, condition_channels: int = 0
    ) -> None:
        super().__init__(channels, split, condition_channels)
        self.phi = self._make(subnet, channels - split, split)
        self.eta = self._make(subnet, split, channels - split)

    def steps(self) -> tuple[CouplingStep, CouplingStep]:
        """Return the change of x1 by phi, and that of x2 by eta."""
        return (
            CouplingStep(self._second, self._first, (self.phi,), torch.add, torch.sub),
            CouplingStep(self._first, self._second, (self.eta,), torch.add, torch.sub),
        )
