"""The base of all layers: a bijection with both directions and both log-determinants."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.layers.conditioning import Result, apply, check_no_condition, common_channels

__all__ = ["Inverse", "InvertibleModule", "InvertibleSequential"]

_STATE_DTYPES = (torch.float32, torch.float64)


class InvertibleModule(nn.Module, ABC):
    r"""A bijection :math:`y = f(x)` on tensors whose first dimension is the batch.

    A subclass gives four methods. The log-determinants are per sample and belong to the direction
    that is evaluated, so :math:`\log|\det J_{f^{-1}}(y)| = -\log|\det J_f(x)|`.

    A bijection of x that depends on a condition c as well, :math:`y = f(x; c)`, has ``condition_channels``
    above 0, and its four methods take the condition as a second argument, ``f(x, condition)``. A subclass
    that changes the shape of its input gives ``forward_shape`` and ``inverse_shape``, too.

    Attributes:
        condition_channels: channels of the condition; 0 for none.

    Example:
        >>> import torch
        >>> from invertible_rescaling import InvertibleModule
        >>> class Scale(InvertibleModule):
        ...     def forward(self, x):
        ...         return 2 * x
        ...     def inverse(self, y):
        ...         return y / 2
        ...     def forward_with_log_det(self, x):
        ...         return 2 * x, x.new_full((x.shape[0],), x[0].numel()) * torch.log(torch.tensor(2.0))
        ...     def inverse_with_log_det(self, y):
        ...         return y / 2, -self.forward_with_log_det(y)[1]
        >>> Scale().inverse(Scale()(torch.ones(1, 1, 1, 2)))
        tensor([[[[1., 1.]]]])
    """

    condition_channels: int = 0

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` to ``y``."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Map ``y`` back to ``x``."""

    @abstractmethod
    def forward_with_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y`` and log|det dy/dx|, a ``(B,)`` tensor."""

    @abstractmethod
    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` and log|det dx/dy|, a ``(B,)`` tensor."""

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one sample of ``y`` for that of one of ``x``, ``(C, H, W)``; the same by default."""
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one sample of ``x`` for that of one of ``y``; the same by default."""
        return tuple(shape)


class Inverse(InvertibleModule):
    """The same bijection the other way round: ``Inverse(f)(y)`` is ``f.inverse(y)``.

    Args:
        module: the bijection to turn round; it is shared, not copied.

    Example:
        >>> import torch
        >>> from invertible_rescaling import HaarDownsampling, Inverse
        >>> Inverse(HaarDownsampling(3))(torch.zeros(1, 12, 4, 5)).shape
        torch.Size([1, 3, 8, 10])
    """

    def __init__(self, module: InvertibleModule) -> None:
        super().__init__()
        self.module = module
        self.condition_channels = module.condition_channels

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self._apply_to(x, condition, self.module.inverse)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        out: Tensor = self._apply_to(y, condition, self.module)
        return out

    def forward_with_log_det(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_to(x, condition, self.module.inverse_with_log_det)

    def inverse_with_log_det(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_to(y, condition, self.module.forward_with_log_det)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.module.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.module.forward_shape(shape)

    def _apply_to(self, x: Tensor, condition: Tensor | None, method: Callable[..., Result]) -> Result:
        check_no_condition(condition, self.condition_channels, "Inverse")
        return apply(self.module, method, x, condition)


class InvertibleSequential(InvertibleModule):
    """Bijections one after the other; the inverse runs them backwards.

    Where layers take a condition, the sequence takes it and hands it to each of them. A map then has to be of
    the height and width that the state has at all of them; one vector a sample, ``(B, k)``, goes anywhere.

    Args:
        *modules: the bijections, in the order ``forward`` applies them; at least one.

    Raises:
        ConfigError: no module was given, one has no ``inverse``, or conditions differ in channels.

    Example:
        >>> import torch
        >>> from invertible_rescaling import AffineCoupling, CRDB, HaarDownsampling, InvertibleSequential
        >>> flow = InvertibleSequential(HaarDownsampling(3), AffineCoupling(12, 3, CRDB))
        >>> y, log_det = flow.forward_with_log_det(torch.rand(2, 3, 8, 8))
        >>> y.shape, log_det.shape
        (torch.Size([2, 12, 4, 4]), torch.Size([2]))
    """

    def __init__(self, *modules: InvertibleModule) -> None:
        super().__init__()
        if not modules:
            raise ConfigError("InvertibleSequential needs at least one module, got none")
        for module in modules:
            if not isinstance(module, InvertibleModule):
                raise ConfigError(
                    f"InvertibleSequential takes InvertibleModule objects, got {type(module).__name__}; "
                    "give it forward, inverse and their with_log_det forms"
                )
        self.condition_channels = common_channels(modules, "InvertibleSequential")
        self.layers = nn.ModuleList(modules)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> InvertibleModule:
        if not isinstance(index, int):
            raise ConfigError(f"InvertibleSequential is indexed by integers, got {index!r}")
        layer = self.layers[index]
        if not isinstance(layer, InvertibleModule):
            raise ConfigError(f"layer {index} was replaced by a {type(layer).__name__}, which has no inverse")
        return layer

    def __iter__(self) -> Iterator[InvertibleModule]:
        return (self[index] for index in range(len(self)))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        check_no_condition(condition, self.condition_channels, "InvertibleSequential")
        for layer in self:
            x = apply(layer, layer, x, condition)
        return x

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        check_no_condition(condition, self.condition_channels, "InvertibleSequential")
        for layer in reversed(list(self)):
            y = apply(layer, layer.inverse, y, condition)
        return y

    def forward_with_log_det(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_no_condition(condition, self.condition_channels, "InvertibleSequential")
        total = x.new_zeros(x.shape[:1])
        for layer in self:
            x, log_det = apply(layer, layer.forward_with_log_det, x, condition)
            total = total + log_det
        return x, total

    def inverse_with_log_det(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_no_condition(condition, self.condition_channels, "InvertibleSequential")
        total = y.new_zeros(y.shape[:1])
        for layer in reversed(list(self)):
            y, log_det = apply(layer, layer.inverse_with_log_det, y, condition)
            total = total + log_det
        return y, total

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        for layer in self:
            shape = layer.forward_shape(shape)
        return tuple(shape)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        for layer in reversed(list(self)):
            shape = layer.inverse_shape(shape)
        return tuple(shape)


def check_weights(x: Tensor, module: nn.Module) -> None:
    """Refuse a state of another precision than the weights that are to be multiplied with it.

    Raises:
        DtypeError: one is float32, the other float64.
    """
    for weight in module.parameters():  # the first alone
        if weight.dtype != x.dtype and weight.dtype in _STATE_DTYPES:
            raise DtypeError(
                f"{type(module).__name__} was given {x.dtype}, and its weights are {weight.dtype}; convert "
                f"one, as in x.to({weight.dtype})"
            )
        break


def check_state(x: Tensor, channels: int, who: str) -> None:
    """Refuse anything but a float32 or float64 ``(B, channels, H, W)`` tensor with no empty side.

    Raises:
        ShapeError: wrong rank, number of channels, or an empty height or width.
        DtypeError: any other dtype; the state of a bijection is never below float32.
    """
    if not isinstance(x, Tensor):
        raise DtypeError(f"{who} takes a torch.Tensor of shape (B, {channels}, H, W), got {type(x).__name__}")
    shape = tuple(x.shape)
    if x.dim() != 4:
        raise ShapeError(f"{who} takes a 4-d tensor (B, {channels}, H, W), got {x.dim()} dimensions {shape}")
    if shape[1] != channels:
        raise ShapeError(f"{who} takes {channels} channels (B, {channels}, H, W), got {shape[1]} in {shape}")
    if shape[2] < 1 or shape[3] < 1:
        raise ShapeError(f"{who} needs height and width of at least 1, got {shape}")
    if x.dtype not in _STATE_DTYPES:
        raise DtypeError(
            f"{who} keeps its state in float32 or float64, got {x.dtype}; convert the input "
            "(8-bit images: image.float() / 255) and use torch.autocast for half-precision sub-networks"
        )
