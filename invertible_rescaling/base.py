"""What every layer of the library is: a bijection with both directions and both log-determinants."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError

__all__ = ["Inverse", "InvertibleModule", "InvertibleSequential"]

_STATE_DTYPES = (torch.float32, torch.float64)


class InvertibleModule(nn.Module, ABC):
    r"""A bijection :math:`y = f(x)` on tensors whose first dimension is the batch.

    A subclass gives four methods. The log-determinants are per sample and belong to the direction
    that is evaluated, so :math:`\log|\det J_{f^{-1}}(y)| = -\log|\det J_f(x)|`.

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

    def forward(self, x: Tensor) -> Tensor:
        return self.module.inverse(x)

    def inverse(self, y: Tensor) -> Tensor:
        out: Tensor = self.module(y)
        return out

    def forward_with_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.module.inverse_with_log_det(x)

    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.module.forward_with_log_det(y)


class InvertibleSequential(InvertibleModule):
    """Bijections one after the other; the inverse runs them backwards.

    Args:
        *modules: the bijections, in the order ``forward`` applies them; at least one.

    Raises:
        ConfigError: no module was given, or one has no ``inverse``.

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

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for layer in reversed(list(self)):
            y = layer.inverse(y)
        return y

    def forward_with_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[:1])
        for layer in self:
            x, log_det = layer.forward_with_log_det(x)
            total = total + log_det
        return x, total

    def inverse_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        total = y.new_zeros(y.shape[:1])
        for layer in reversed(list(self)):
            y, log_det = layer.inverse_with_log_det(y)
            total = total + log_det
        return y, total


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
