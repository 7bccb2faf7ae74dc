r"""Coupling layers: bijections built from arbitrary networks phi, rho and eta.

The input is split by channel into x1 (the first ``split`` channels, the low-pass image of a rescaler)
and x2 (the rest). The networks need no inverse of their own, and may read a condition beside their half.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels.dispatch import may_overwrite
from invertible_rescaling.layers.base import InvertibleModule, check_state
from invertible_rescaling.layers.conditioning import check_condition, joined
from invertible_rescaling.layers.halfsteps import HalfStep, evaluate

__all__ = ["AdditiveCoupling", "AffineCoupling", "SubnetFactory"]

SubnetFactory = Callable[[int, int], nn.Module]

# What reversible.ReversibleLayer is handed: function(x), and what maps its gradient to that of x.
Recompute = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


class _Coupling(InvertibleModule):
    """The checks and the split that both couplings share."""

    def __init__(self, channels: int, split: int, condition_channels: int) -> None:
        super().__init__()
        if not isinstance(channels, int) or not isinstance(split, int) or not 0 < split < channels:
            raise ConfigError(
                f"{type(self).__name__} needs integers 0 < split < channels, "
                f"got split={split!r} and channels={channels!r}"
            )
        whole = isinstance(condition_channels, int) and not isinstance(condition_channels, bool)
        if not whole or condition_channels < 0:
            raise ConfigError(
                f"{type(self).__name__} needs condition_channels to be an integer of at least 0, "
                f"got {condition_channels!r}"
            )
        self.channels = channels
        self.split = split
        self.condition_channels = condition_channels

    def _make(self, subnet: SubnetFactory, in_channels: int, out_channels: int) -> nn.Module:
        if not callable(subnet):
            raise ConfigError(
                f"{type(self).__name__} takes a factory subnet(in_channels, out_channels) -> Module, such as "
                f"CRDB, got {subnet!r}; InvertibleRescaler takes names"
            )
        return subnet(in_channels + self.condition_channels, out_channels)

    def _changing_first(self, combine: Callable[..., Tensor], *networks: nn.Module) -> HalfStep:
        return self._half_step(slice(self.split, self.channels), slice(0, self.split), networks, combine)

    def _changing_second(self, combine: Callable[..., Tensor], *networks: nn.Module) -> HalfStep:
        return self._half_step(slice(0, self.split), slice(self.split, self.channels), networks, combine)

    def _half_step(
        self, reads: slice, writes: slice, networks: tuple[nn.Module, ...], combine: Callable[..., Tensor]
    ) -> HalfStep:
        if self.condition_channels:
            raise ConfigError(
                f"{type(self).__name__} takes a condition, and half steps read nothing but the state: it "
                "cannot run in exact tiles, and how far it reaches is not known"
            )
        return HalfStep(reads, writes, networks, combine)

    def _halves(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        check_state(x, self.channels, type(self).__name__)
        check_condition(condition, self.condition_channels, x, type(self).__name__)
        return self._parted(x)

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, : self.split], x[:, self.split :]

    def _space(
        self, like: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
        """A tensor for the result and its halves, where results may be written in place of being joined."""
        if not may_overwrite(like) or not (condition is None or may_overwrite(condition)):
            return None, None, None
        whole = torch.empty_like(like)
        return whole, whole[:, : self.split], whole[:, self.split :]

    def extra_repr(self) -> str:
        own = f"channels={self.channels}, split={self.split}"
        return own + (f", condition_channels={self.condition_channels}" if self.condition_channels else "")


class AffineCoupling(_Coupling):
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

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self._transform(x, condition)[0]

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return self._invert(y, condition)[0]

    def forward_with_log_det(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, s = self._transform(x, condition)
        return y, s.sum(dim=(1, 2, 3))

    def inverse_with_log_det(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, s = self._invert(y, condition)
        return x, -s.sum(dim=(1, 2, 3))

    def _transform(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        x1, x2 = self._halves(x, condition)
        y, y1, y2 = self._space(x, condition)
        y1 = torch.add(x1, evaluate(self.phi, joined(x2, condition), x1), out=y1)
        s = self._log_scale(y1, x2, condition)
        y2 = self._scaled(x2, s, evaluate(self.eta, joined(y1, condition), x2), out=y2)
        return torch.cat((y1, y2), dim=1) if y is None else y, s

    def _invert(self, y: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        y1, y2 = self._halves(y, condition)
        x, x1, x2 = self._space(y, condition)
        s = self._log_scale(y1, y2, condition)
        x2 = self._unscaled(y2, s, evaluate(self.eta, joined(y1, condition), y2), out=x2)
        x1 = torch.sub(y1, evaluate(self.phi, joined(x2, condition), y1), out=x1)
        return torch.cat((x1, x2), dim=1) if x is None else x, s

    def _log_scale(self, y1: Tensor, like: Tensor, condition: Tensor | None) -> Tensor:
        return self._bounded(evaluate(self.rho, joined(y1, condition), like))

    def _bounded(self, rho: Tensor) -> Tensor:
        return self.clamp * torch.tanh(rho / 2)

    def _scaled(self, x2: Tensor, s: Tensor, eta: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.addcmul(eta, x2, torch.exp(s), out=out)

    def _unscaled(self, y2: Tensor, s: Tensor, eta: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mul(y2 - eta, torch.exp(-s), out=out)

    def half_steps(self) -> tuple[HalfStep, HalfStep]:
        """What ``forward`` does to one half after the other."""

        def combine(x2: Tensor, rho: Tensor, eta: Tensor) -> Tensor:
            return self._scaled(x2, self._bounded(rho), eta)

        return self._changing_first(torch.add, self.phi), self._changing_second(combine, self.rho, self.eta)

    def inverse_half_steps(self) -> tuple[HalfStep, HalfStep]:
        """What ``inverse`` does to one half after the other."""

        def combine(y2: Tensor, rho: Tensor, eta: Tensor) -> Tensor:
            return self._unscaled(y2, self._bounded(rho), eta)

        return self._changing_second(combine, self.rho, self.eta), self._changing_first(torch.sub, self.phi)

    def backpropagate(
        self,
        y: Tensor,
        grad_y: Tensor,
        recompute: Recompute,
        known: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return x and its gradient for y and its gradient (:class:`~.reversible.ReversibleLayer`)."""
        (y1, y2), (grad1, grad2) = self._parted(y), self._parted(grad_y)
        eta, pull = recompute(lambda y1: evaluate(self.eta, joined(y1, condition), y2), y1)
        grad1 = grad1 + pull(grad2)
        scaled = y2 - eta
        s, pull = recompute(lambda y1: self._log_scale(y1, y2, condition), y1)
        grad1 += pull(grad2 * scaled)
        grad2 = grad2 * torch.exp(s)
        x2 = scaled * torch.exp(-s) if known is None else self._parted(known)[1]
        phi, pull = recompute(lambda x2: evaluate(self.phi, joined(x2, condition), y1), x2)
        grad2 += pull(grad1)
        return torch.cat((y1 - phi, x2), dim=1), torch.cat((grad1, grad2), dim=1)

    def backpropagate_inverse(
        self,
        x: Tensor,
        grad_x: Tensor,
        recompute: Recompute,
        known: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return y and its gradient for x and its gradient (:class:`~.reversible.ReversibleLayer`)."""
        (x1, x2), (grad1, grad2) = self._parted(x), self._parted(grad_x)
        phi, pull = recompute(lambda x2: evaluate(self.phi, joined(x2, condition), x1), x2)
        grad2 = grad2 + pull(-grad1)
        y1 = x1 + phi if known is None else self._parted(known)[0]
        s, pull = recompute(lambda y1: self._log_scale(y1, x2, condition), y1)
        grad1 = grad1 + pull(-grad2 * x2)
        grad2 *= torch.exp(-s)
        eta, pull = recompute(lambda y1: evaluate(self.eta, joined(y1, condition), x2), y1)
        grad1 += pull(-grad2)
        return torch.cat((y1, x2 * torch.exp(s) + eta), dim=1), torch.cat((grad1, grad2), dim=1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, clamp={self.clamp}"


class AdditiveCoupling(_Coupling):
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

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x1, x2 = self._halves(x, condition)
        y1 = x1 + evaluate(self.phi, joined(x2, condition), x1)
        return torch.cat((y1, x2 + evaluate(self.eta, joined(y1, condition), x2)), dim=1)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        y1, y2 = self._halves(y, condition)
        x2 = y2 - evaluate(self.eta, joined(y1, condition), y2)
        return torch.cat((y1 - evaluate(self.phi, joined(x2, condition), y1), x2), dim=1)

    def forward_with_log_det(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(x, condition), x.new_zeros(x.shape[0])

    def inverse_with_log_det(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inverse(y, condition), y.new_zeros(y.shape[0])

    def half_steps(self) -> tuple[HalfStep, HalfStep]:
        """What ``forward`` does to one half after the other."""
        return self._changing_first(torch.add, self.phi), self._changing_second(torch.add, self.eta)

    def inverse_half_steps(self) -> tuple[HalfStep, HalfStep]:
        """What ``inverse`` does to one half after the other."""
        return self._changing_second(torch.sub, self.eta), self._changing_first(torch.sub, self.phi)

    def backpropagate(
        self,
        y: Tensor,
        grad_y: Tensor,
        recompute: Recompute,
        known: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return x and its gradient for y and its gradient (:class:`~.reversible.ReversibleLayer`)."""
        (y1, y2), (grad1, grad2) = self._parted(y), self._parted(grad_y)
        eta, pull = recompute(lambda y1: evaluate(self.eta, joined(y1, condition), y2), y1)
        grad1 = grad1 + pull(grad2)
        x2 = y2 - eta if known is None else self._parted(known)[1]
        phi, pull = recompute(lambda x2: evaluate(self.phi, joined(x2, condition), y1), x2)
        return torch.cat((y1 - phi, x2), dim=1), torch.cat((grad1, grad2 + pull(grad1)), dim=1)

    def backpropagate_inverse(
        self,
        x: Tensor,
        grad_x: Tensor,
        recompute: Recompute,
        known: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return y and its gradient for x and its gradient (:class:`~.reversible.ReversibleLayer`)."""
        (x1, x2), (grad1, grad2) = self._parted(x), self._parted(grad_x)
        phi, pull = recompute(lambda x2: evaluate(self.phi, joined(x2, condition), x1), x2)
        grad2 = grad2 + pull(-grad1)
        y1 = x1 + phi if known is None else self._parted(known)[0]
        eta, pull = recompute(lambda y1: evaluate(self.eta, joined(y1, condition), x2), y1)
        return torch.cat((y1, x2 + eta), dim=1), torch.cat((grad1 + pull(-grad2), grad2), dim=1)
