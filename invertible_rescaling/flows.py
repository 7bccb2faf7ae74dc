"""Invertible layers in other libraries' flows: adapters for PyTorch's distributions, Pyro, zuko and FrEIA.

None of the last three is imported here: the adapters go by what each of them calls.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.layers.base import InvertibleModule
from invertible_rescaling.layers.conditioning import apply

__all__ = ["FlowTransform", "FreiaLayer", "LazyFlowTransform"]

_WithLogDet = Callable[..., tuple[Tensor, Tensor]]
_OfShape = Callable[[Sequence[int]], tuple[int, ...]]


class FlowTransform(Transform):
    r"""A bijection as a ``torch.distributions`` transform, for PyTorch, Pyro and zuko.

    The transform holds the module and registers it nowhere: optimise ``module.parameters()``, or give the
    module to ``pyro.module``.

    References:
        Rezende & Mohamed 2015, *Variational Inference with Normalizing Flows*, section 3.

    Shapes:
        ``(*batch, C, H, W)`` to ``(*batch, *module.forward_shape((C, H, W)))``; with ``event_dim=1``,
        ``(*batch, C) -> (*batch, C)``. Log-determinants are of shape ``batch``. The batches of input and
        condition are broadcast.

    Args:
        module: the bijection; of a rescaler, ``model.flow``.
        condition: for a module with ``condition_channels`` k: vectors ``(*batch, k)``, or maps
            ``(*batch, k, H, W)`` with ``condition_dim=3``.
        event_dim: 3 for images; 1 for vectors, which go through as images of one pixel.
        condition_dim: 1 or 3, how many dimensions of the condition belong to one sample.
        cache_size: 1 keeps the last input, output and log-determinant, so that the density of a value takes
            one pass through the module and not two.

    Raises:
        ConfigError: another number of dimensions, a module that is no ``InvertibleModule``, or a condition
            that is missing or not needed.
        ShapeError: an input with too few dimensions, or one that the module does not take.

    Example:
        >>> import torch
        >>> from torch.distributions import Independent, Normal, TransformedDistribution
        >>> from invertible_rescaling import CRDB, AffineCoupling, HaarDownsampling, InvertibleSequential
        >>> from invertible_rescaling.flows import FlowTransform
        >>> flow = InvertibleSequential(HaarDownsampling(3), AffineCoupling(12, 3, CRDB))
        >>> base = Independent(Normal(torch.zeros(12, 4, 4), 1.0), 3)
        >>> images = TransformedDistribution(base, [FlowTransform(flow).inv])
        >>> images.event_shape, images.sample((5,)).shape
        (torch.Size([3, 8, 8]), torch.Size([5, 3, 8, 8]))
        >>> images.log_prob(torch.rand(5, 3, 8, 8)).shape
        torch.Size([5])
    """

    bijective = True

    def __init__(
        self,
        module: InvertibleModule,
        condition: Tensor | None = None,
        *,
        event_dim: int = 3,
        condition_dim: int = 1,
        cache_size: int = 0,
    ) -> None:
        super().__init__(cache_size=cache_size)
        _check_module(module, "FlowTransform")
        for name, dims in {"event_dim": event_dim, "condition_dim": condition_dim}.items():
            if dims not in (1, 3):
                raise ConfigError(f"{name} must be 1 for vectors or 3 for images, got {dims!r}")
        if (condition is None) != (module.condition_channels == 0):
            given = "none" if condition is None else f"one of {tuple(condition.shape)}"
            has = f"{type(module).__name__} has condition_channels={module.condition_channels}"
            raise ConfigError(f"{has}, and FlowTransform was given {given} as the condition")
        self.module = module
        self.condition = condition
        self.domain = self.codomain = _real(event_dim)
        self._dims, self._condition_dims = event_dim, condition_dim
        self._cached_log_det: tuple[Tensor | None, Tensor | None] = (None, None)

    def with_cache(self, cache_size: int = 1) -> "FlowTransform":
        if cache_size == self._cache_size:
            return self
        dims = {"event_dim": self._dims, "condition_dim": self._condition_dims}
        return FlowTransform(self.module, self.condition, **dims, cache_size=cache_size)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and log|det dy/dx| from one pass, which zuko asks for by this name."""
        return self._map(self.module.forward_with_log_det, x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        known, log_det = self._cached_log_det
        return self.call_and_ladj(x)[1] if log_det is None or known is not x else log_det

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return self._shape(self.module.forward_shape, shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self._shape(self.module.inverse_shape, shape)

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self.call_and_ladj(x)
        self._remember(x, log_det)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self._map(self.module.inverse_with_log_det, y)
        self._remember(x, -log_det)
        return x

    def _remember(self, x: Tensor, log_det: Tensor) -> None:
        if self._cache_size:
            self._cached_log_det = x, log_det

    def _map(self, method: _WithLogDet, x: Tensor) -> tuple[Tensor, Tensor]:
        batch = _batch_of(x, self._dims, "the input")
        condition = self.condition
        if condition is not None:
            batch = _broadcast(batch, _batch_of(condition, self._condition_dims, "the condition"))
            condition = _as_one_batch(condition, batch, self._condition_dims)
        state = _as_image(_as_one_batch(x, batch, self._dims))
        out, log_det = apply(self.module, method, state, condition)
        event = _as_event(out, self._dims)
        return event.reshape(*batch, *event.shape[1:]), log_det.reshape(batch)

    def _shape(self, of_sample: _OfShape, shape: Sequence[int]) -> torch.Size:
        batch, event = shape[: -self._dims], shape[-self._dims :]
        return torch.Size((*batch, *of_sample(_with_pixel(event))[: self._dims]))


class LazyFlowTransform(nn.Module):
    """A maker of a :class:`FlowTransform` for each context: a part of zuko's flows.

    ``zuko.lazy.Flow([LazyFlowTransform(module)], base)`` registers the module's parameters, and calls this
    with the context that it is called with itself. A module that takes no condition goes without, as zuko's
    own unconditional transforms do.

    Shapes:
        the context: vectors ``(*batch, k)``, where k is the module's ``condition_channels``.

    Args:
        module: the bijection, from data to what the base distribution is of.
        event_dim: as for :class:`FlowTransform`.

    Raises:
        ConfigError: as for :class:`FlowTransform`.

    Example:
        >>> import torch
        >>> from invertible_rescaling import AffineCoupling, DenseBlock
        >>> from invertible_rescaling.flows import LazyFlowTransform
        >>> lazy = LazyFlowTransform(AffineCoupling(2, 1, DenseBlock, condition_channels=5), event_dim=1)
        >>> lazy(torch.rand(7, 5))(torch.rand(7, 2)).shape
        torch.Size([7, 2])
    """

    def __init__(self, module: InvertibleModule, *, event_dim: int = 3) -> None:
        super().__init__()
        _check_module(module, "LazyFlowTransform")
        self.module = module
        self.event_dim = event_dim

    def forward(self, c: Tensor | None = None) -> FlowTransform:
        """Make the transform for a context."""
        taken = c if self.module.condition_channels else None
        return FlowTransform(self.module, taken, event_dim=self.event_dim)


class FreiaLayer(nn.Module):
    """A bijection with the signature of FrEIA's modules, for its ``SequenceINN`` and ``GraphINN``.

    ``inn.append(FreiaLayer, module=coupling)``; with ``cond=0, cond_shape=(k,)``, or ``(k, H, W)``, for a
    module with ``condition_channels`` k. Several conditions are joined.

    References:
        Ardizzone et al. 2018-2022, *Framework for Easily Invertible Architectures (FrEIA)*.

    Shapes:
        ``((B, C, H, W),) -> ((B, *module.forward_shape((C, H, W))),)``, or ``((B, C),) -> ((B, C),)`` for
        vectors, which go through as images of one pixel; log-determinants are ``(B,)``, of the direction
        evaluated.

    Args:
        dims_in: the shape of one sample, ``[(C, H, W)]`` or ``[(C,)]``; FrEIA gives it.
        dims_c: the shapes of the conditions; FrEIA gives them.
        module: the bijection.

    Raises:
        ConfigError: more than one input, or conditions that do not add up to the module's channels.

    Example:
        >>> import torch
        >>> from invertible_rescaling import HaarDownsampling
        >>> from invertible_rescaling.flows import FreiaLayer
        >>> layer = FreiaLayer([(3, 8, 8)], module=HaarDownsampling(3))
        >>> (y,), log_det = layer((torch.rand(2, 3, 8, 8),))
        >>> y.shape, layer.output_dims([(3, 8, 8)])
        (torch.Size([2, 12, 4, 4]), [(12, 4, 4)])
    """

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None = None,
        *,
        module: InvertibleModule,
    ) -> None:
        super().__init__()
        _check_module(module, "FreiaLayer")
        self.dims_in = [tuple(dims) for dims in dims_in]
        self.dims_c = [tuple(dims) for dims in dims_c or ()]
        if len(self.dims_in) != 1 or len(self.dims_in[0]) not in (1, 3):
            raise ConfigError(f"FreiaLayer takes one input, (C, H, W) or (C,), got dims_in={self.dims_in}")
        given = sum(dims[0] for dims in self.dims_c)
        if given != module.condition_channels:
            raise ConfigError(
                f"the conditions {self.dims_c} have {given} channels, and {type(module).__name__} has "
                f"condition_channels={module.condition_channels}"
            )
        self.module = module

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        """Go through the module, with ``rev`` backwards; the log-determinant comes whatever ``jac`` is."""
        (x,) = x_or_z
        method = self.module.inverse_with_log_det if rev else self.module.forward_with_log_det
        condition = torch.cat(tuple(c), dim=1) if c else None
        out, log_det = apply(self.module, method, _as_image(x), condition)
        return (_as_event(out, x.dim() - 1),), log_det

    def output_dims(self, input_dims: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """The shape of one sample of the output."""
        (dims,) = input_dims
        return [self.module.forward_shape(_with_pixel(dims))[: len(dims)]]


def _real(dims: int) -> constraints.Constraint:
    independent: Callable[..., constraints.Constraint] = constraints.independent
    return independent(constraints.real, dims)


def _check_module(module: object, who: str) -> None:
    if not isinstance(module, InvertibleModule):
        raise ConfigError(
            f"{who} takes an InvertibleModule, got {type(module).__name__}; of an InvertibleRescaler, take "
            "its flow"
        )


def _batch_of(x: Tensor, dims: int, what: str) -> torch.Size:
    """The leading dimensions, apart from the ``dims`` of one sample."""
    if x.dim() < dims:
        raise ShapeError(f"{what} must have at least {dims} dimensions, got {tuple(x.shape)}")
    return x.shape[: x.dim() - dims]


def _broadcast(*batches: torch.Size) -> torch.Size:
    try:
        found: torch.Size = torch.broadcast_shapes(*batches)  # type: ignore[no-untyped-call]  # of torch's own
    except RuntimeError as error:
        given = " and ".join(str(tuple(batch)) for batch in batches)
        raise ShapeError(f"the batches of input and condition must be broadcastable, got {given}") from error
    return found


def _as_one_batch(x: Tensor, batch: Sequence[int], dims: int) -> Tensor:
    event = x.shape[x.dim() - dims :]
    return x.expand(*batch, *event).reshape(math.prod(batch), *event)


def _as_image(x: Tensor) -> Tensor:
    """Vectors ``(B, C)`` as images of one pixel; images as they are."""
    return x[:, :, None, None] if x.dim() == 2 else x


def _as_event(y: Tensor, dims: int) -> Tensor:
    """The images ``(B, C, H, W)``, or the vectors that they are with ``dims`` of 1."""
    if dims == 1 and y.shape[2:] != (1, 1):
        raise ShapeError(
            f"vectors go through as images of one pixel, and the module made {tuple(y.shape)} of them; give "
            "it images, (C, H, W)"
        )
    return y.flatten(1) if dims == 1 else y


def _with_pixel(event: Sequence[int]) -> tuple[int, ...]:
    return (*event, 1, 1) if len(event) == 1 else tuple(event)
