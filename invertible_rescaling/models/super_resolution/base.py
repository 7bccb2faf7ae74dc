"""The base of super-resolvers: bicubic down, a network up, and the two calls of a rescaler."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, UnknownNameError
from invertible_rescaling.functional import bicubic_resize, check_bits, pad_to_multiple, quantize
from invertible_rescaling.models.checks import check_image, original_size
from invertible_rescaling.models.config import check_count, check_scale
from invertible_rescaling.models.pretrained_model import PretrainedModel

__all__ = ["SuperResolver"]

_architectures: dict[str, type["SuperResolver"]] = {}


class SuperResolver(PretrainedModel, ABC):
    """A network that enlarges LR ``(B, channels, h, w)`` to ``(B, channels, scale*h, scale*w)``.

    :meth:`downscale` is bicubic, so that a super-resolver can be measured beside an
    :class:`~invertible_rescaling.InvertibleRescaler` by the same two calls.

    Args:
        scale: a power of two of at least 2.
        channels: of the image; 3 for RGB.
        **sizes: what else makes the network what it is, for :attr:`config`; all positive integers.

    Raises:
        ConfigError: one of these is out of range.

    Example:
        >>> import torch
        >>> from invertible_rescaling import srcnn_x4
        >>> model, hr = srcnn_x4().eval(), torch.rand(1, 3, 30, 41)
        >>> lr = model.downscale(hr)
        >>> lr.shape, model.upscale(lr, size=(30, 41)).shape
        (torch.Size([1, 3, 8, 11]), torch.Size([1, 3, 30, 41]))
    """

    architecture: ClassVar[str]

    def __init_subclass__(cls, *, architecture: str, **options: Any) -> None:
        """Let checkpoints know a super-resolver by the name of its architecture."""
        super().__init_subclass__(**options)
        cls.architecture = architecture
        _architectures[architecture] = cls

    def __init__(self, scale: int, channels: int, **sizes: int) -> None:
        super().__init__()
        for name, value in sizes.items():
            check_count(name, value, least=1)
        self.scale, self.channels = check_scale(scale), check_count("channels", channels, least=1)
        self._sizes = sizes

    @property
    def config(self) -> dict[str, Any]:
        """The name of the architecture and the constructor's arguments, as plain data."""
        return {
            "architecture": self.architecture,
            "scale": self.scale,
            "channels": self.channels,
            **self._sizes,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the untrained network that a :attr:`config` describes, of this class or one below it.

        Raises:
            ConfigError: no such network has that architecture, or it does not take these arguments.

        Example:
            >>> from invertible_rescaling import srcnn_x4
            >>> from invertible_rescaling.models.super_resolution import SuperResolver
            >>> type(SuperResolver.from_config(srcnn_x4().config)).__name__
            'SRCNN'
        """
        options = dict(config)
        name = options.pop("architecture", None)
        known = {known: kind for known, kind in _architectures.items() if issubclass(kind, cls)}
        if name not in known:
            raise UnknownNameError(
                f"no {cls.__name__} has the architecture {name!r}; known: {', '.join(sorted(known))}"
            )
        try:
            return known[name](**options)
        except TypeError as error:
            raise ConfigError(f"the architecture {name!r} does not take {options!r}: {error}") from error

    @abstractmethod
    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge LR; nothing is clamped or rounded."""

    @torch.no_grad()
    def downscale(self, hr: Tensor, *, bits: int = 8) -> Tensor:
        """Shrink HR ``(B, C, H, W)`` in [0, 1] by bicubic interpolation to ``ceil(H/scale) x ceil(W/scale)``.

        Sides that are not multiples of the scale are padded by repeating the last row and column.

        Raises:
            ShapeError, DtypeError: on what is no batch of images.
            ValueRangeError: values outside of [0, 1], or ``bits`` not from 1 to 16.
        """
        check_image(hr, self.channels, f"{type(self).__name__}.downscale")
        check_bits(bits)
        hr = pad_to_multiple(hr, self.scale)
        small = (hr.shape[2] // self.scale, hr.shape[3] // self.scale)
        return quantize(bicubic_resize(hr, small), bits)

    @torch.no_grad()
    def upscale(self, lr: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Enlarge LR ``(B, C, h, w)`` to ``size``, ``scale`` times larger by default, clamped to [0, 1].

        Raises:
            ShapeError: ``size`` is not one that downscales to LR's, or LR is no batch of images.
            DtypeError: LR is neither float32 nor float64.
            ValueRangeError: values outside of [0, 1].
        """
        check_image(lr, self.channels, f"{type(self).__name__}.upscale")
        height, width = original_size(lr, size, self.scale)
        sr: Tensor = self(lr).clamp(0, 1)
        return sr[..., :height, :width]

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.config.items() if name != "architecture")


def conv(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x)))``, without batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.activation(self.first(x)))
        return out


def pixel_shuffles(width: int, scale: int, activation: nn.Module | None = None) -> nn.Sequential:
    """Enlarge by 2 as often as it takes: a convolution to four times the width, and a pixel shuffle."""
    layers: list[nn.Module] = []
    for _ in range(scale.bit_length() - 1):
        layers += [conv(width, 4 * width), nn.PixelShuffle(2)]
        layers += [] if activation is None else [activation]
    return nn.Sequential(*layers)
