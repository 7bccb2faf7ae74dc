"""What people do to LR before it is brought back: compression, brightness, crops; differentiable.

A degradation takes LR, as it is stored, and HR, and returns LR as it arrives, and what should come of it. It
stands between the quantiser and the inverse, where :class:`~invertible_rescaling.RescalingLoss` takes it, and
serves any network that is to survive the same.

References:
    Yang et al. 2023, *Self-Asymmetric Invertible Network for Compression-Aware Image Rescaling* (SAIN), and
    Xiao et al. 2022, *Invertible Rescaling Network and Its Extensions*, train for compressed LR.

What is drawn at random is drawn for each image, by torch's generator of LR's device. The module is long for
its docstrings: each degradation is a dozen lines, and they are found in one place.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.functional import quantize
from invertible_rescaling.images import to_uint8
from invertible_rescaling.images.lossy import recompress
from invertible_rescaling.training.differentiable_jpeg import Rounding, Subsampling, jpeg

__all__ = [
    "AVIF",
    "JPEG",
    "Brightness",
    "Clean",
    "Codec",
    "Crop",
    "Degradation",
    "Each",
    "OneOf",
    "WebP",
    "degradation_of",
    "jpeg",
]

Range = float | tuple[float, float]


class Degradation(nn.Module, ABC):
    """``(lr, hr) -> (lr, hr)``: LR as it arrives, and what should come of it.

    Shapes:
        LR ``(B, C, h, w)`` in [0, 1], in steps of 8 bits, and HR ``(B, C, H, W)``, whole multiples of it.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import Degradation
        >>> class Grey(Degradation):
        ...     def forward(self, lr, hr):
        ...         return lr.mean(1, keepdim=True).expand_as(lr), hr
        >>> Grey()(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8))[0].shape
        torch.Size([2, 3, 4, 4])
    """

    on_device: ClassVar[bool] = True
    """Whether it runs on LR's device without waiting for the host, as within a CUDA graph it must."""
    keeps_hr: ClassVar[bool] = True
    """Whether HR is what should come of it, as where a run is validated."""

    @abstractmethod
    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]: ...

    def of_lr(self, lr: Tensor) -> Tensor:
        """LR as it arrives, for a degradation that keeps HR."""
        return self(lr, lr)[0]  # type: ignore[no-any-return]


class Clean(Degradation):
    """Nothing happens.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import Clean
        >>> lr, hr = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 8)
        >>> Clean()(lr, hr)[0] is lr
        True
    """

    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        return lr, hr


class JPEG(Degradation):
    """LR is stored as JPEG; see :func:`jpeg`.

    Args:
        quality: 1 to 100, or the least and the greatest to draw from.
        subsampling: of colour.
        rounding: the gradient of rounding.

    Raises:
        ConfigError: a quality that JPEG has none of.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import JPEG
        >>> lr, _ = JPEG((75, 95))(torch.rand(2, 3, 20, 30), torch.rand(2, 3, 40, 60))
        >>> lr.shape
        torch.Size([2, 3, 20, 30])
    """

    def __init__(
        self,
        quality: Range = 90,
        subsampling: Subsampling = "4:2:0",
        rounding: Rounding = "straight-through",
    ) -> None:
        super().__init__()
        self.quality = _range(quality, "the quality of JPEG", 1, 100)
        self.subsampling: Subsampling = subsampling
        self.rounding: Rounding = rounding

    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        quality = _drawn(self.quality, lr).round()
        return jpeg(lr, quality, self.subsampling, self.rounding), hr

    def extra_repr(self) -> str:
        return f"quality={self.quality}, subsampling={self.subsampling!r}, rounding={self.rounding!r}"


class Codec(Degradation):
    """LR is stored by a codec and read again, for real; gradients pass unchanged (straight through).

    Args:
        kind: ``"webp"``, ``"avif"`` or ``"jpg"``.
        quality: 1 to 100, or the least and the greatest to draw from.

    Raises:
        ConfigError: another kind, or a quality out of range.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import Codec
        >>> lr = torch.rand(1, 3, 16, 16, requires_grad=True)
        >>> Codec("webp", 80)(lr, torch.rand(1, 3, 32, 32))[0].sum().backward()
        >>> bool((lr.grad == 1).all())
        True
    """

    on_device = False

    def __init__(self, kind: str, quality: Range) -> None:
        super().__init__()
        if kind not in ("webp", "avif", "jpg"):
            raise ConfigError(f"Codec knows webp, avif and jpg, got {kind!r}")
        self.kind, self.quality = kind, _range(quality, f"the quality of {kind}", 1, 100)

    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        qualities = _drawn(self.quality, lr).round().int().tolist()
        images = to_uint8(lr.detach()).cpu()
        found = torch.stack(
            [recompress(image, self.kind, quality) for image, quality in zip(images, qualities, strict=True)]
        )
        value = found.to(lr.device, lr.dtype) / 255
        return value + (lr - lr.detach()), hr

    def extra_repr(self) -> str:
        return f"{self.kind!r}, quality={self.quality}"


class WebP(Codec):
    """LR is stored as lossy WebP: :class:`Codec` of that kind.

    Example:
        >>> from invertible_rescaling.training.degradations import WebP
        >>> WebP((75, 95))
        WebP('webp', quality=(75, 95))
    """

    def __init__(self, quality: Range = 90) -> None:
        super().__init__("webp", quality)


class AVIF(Codec):
    """LR is stored as lossy AVIF: :class:`Codec` of that kind.

    Example:
        >>> from invertible_rescaling.training.degradations import AVIF
        >>> AVIF(80)
        AVIF('avif', quality=(80, 80))
    """

    def __init__(self, quality: Range = 90) -> None:
        super().__init__("avif", quality)


class Brightness(Degradation):
    """LR is made brighter or darker by a factor, and what should come of it as well.

    Args:
        factor: above 0, or the least and the greatest to draw from.

    Raises:
        ConfigError: a factor that is not above 0.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import Brightness
        >>> lr, hr = Brightness(0.5)(torch.ones(1, 3, 2, 2), torch.ones(1, 3, 4, 4))
        >>> round(lr.mean().item(), 3), hr.mean().item()
        (0.502, 0.5)
    """

    keeps_hr = False

    def __init__(self, factor: Range = (0.8, 1.2)) -> None:
        super().__init__()
        self.factor = _range(factor, "the factor of Brightness", 1e-3, 1e3)

    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        factor = _drawn(self.factor, lr).view(-1, 1, 1, 1)
        return quantize(lr * factor), (hr * factor).clamp(0, 1)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class Crop(Degradation):
    """A part of LR is left, and of HR what belongs to it; one part for all images, drawn by the host.

    Args:
        share: of either side, at most 1, or the least and the greatest to draw from.

    Raises:
        ConfigError: a share out of range.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import Crop
        >>> lr, hr = Crop(0.5)(torch.rand(1, 3, 8, 12), torch.rand(1, 3, 32, 48))
        >>> lr.shape, hr.shape
        (torch.Size([1, 3, 4, 6]), torch.Size([1, 3, 16, 24]))
    """

    on_device = False
    keeps_hr = False

    def __init__(self, share: Range = (0.5, 1.0)) -> None:
        super().__init__()
        self.share = _range(share, "the share of Crop", 1e-3, 1)

    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        for dim in (2, 3):
            side, scale = lr.shape[dim], hr.shape[dim] // lr.shape[dim]
            share, place = torch.rand(2).tolist()
            low, high = self.share
            kept = max(1, round(side * (low + (high - low) * share)))
            at = int(place * (side - kept + 1))
            lr, hr = lr.narrow(dim, at, kept), hr.narrow(dim, at * scale, kept * scale)
        return lr, hr

    def extra_repr(self) -> str:
        return f"share={self.share}"


class _Several(Degradation):
    def __init__(self, *parts: Degradation) -> None:
        super().__init__()
        if not parts or not all(isinstance(part, Degradation) for part in parts):
            raise ConfigError(f"{type(self).__name__} takes degradations, at least one, got {parts}")
        self.parts = nn.ModuleList(parts)
        self.on_device = all(part.on_device for part in parts)  # type: ignore[misc]  # of what it holds
        self.keeps_hr = all(part.keeps_hr for part in parts)  # type: ignore[misc]


class Each(_Several):
    """Degradations one after the other.

    Args:
        *parts: in their order.

    Raises:
        ConfigError: none, or what is no degradation.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import JPEG, Each
        >>> twice = Each(JPEG(90), JPEG((70, 95)))
        >>> twice(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16))[0].shape
        torch.Size([1, 3, 8, 8])
    """

    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        for part in self.parts:
            lr, hr = part(lr, hr)
        return lr, hr


class OneOf(_Several):
    """One of several degradations, drawn for each image. All are computed, and one is taken.

    Args:
        *parts: each as likely, and all of them leave shapes as they are.

    Raises:
        ConfigError: none, or what is no degradation.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import JPEG, Clean, OneOf
        >>> OneOf(Clean(), JPEG(90))(torch.rand(4, 3, 8, 8), torch.rand(4, 3, 16, 16))[0].shape
        torch.Size([4, 3, 8, 8])
    """

    def forward(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Raise ShapeError where a part changes shapes."""
        found = [part(lr, hr) for part in self.parts]
        if any(a.shape != lr.shape or b.shape != hr.shape for a, b in found):
            raise ShapeError("OneOf takes degradations that leave shapes as they are; put Crop before it")
        drawn = torch.randint(len(found), lr.shape[:1], device=lr.device).view(-1, 1, 1, 1)
        small, large = found[0]
        for index, (other_small, other_large) in enumerate(found[1:], 1):
            small = torch.where(drawn == index, other_small, small)
            large = torch.where(drawn == index, other_large, large)
        return small, large


_KINDS: dict[str, Callable[[Range], Degradation]] = {
    "jpeg": lambda quality: JPEG(quality),
    "jpeg444": lambda quality: JPEG(quality, "4:4:4"),
    "webp": WebP,
    "avif": AVIF,
    "brightness": Brightness,
    "crop": Crop,
}


def degradation_of(texts: Sequence[str]) -> Degradation:
    """Make a degradation of words, as ``train --degrade`` takes them.

    Args:
        texts: ``jpeg:75-95`` (of 4:2:0), ``jpeg444:90``, ``webp:80``, ``avif:60-90``, ``brightness:0.8-1.2``,
            ``crop:0.5-1`` or ``none``; those joined by ``+`` follow one another, and of several one is drawn
            for each image.

    Raises:
        ConfigError: another word, or a number out of range.

    Example:
        >>> from invertible_rescaling.training.degradations import degradation_of
        >>> degradation_of(["jpeg:75-95"])
        JPEG(quality=(75, 95), subsampling='4:2:0', rounding='straight-through')
    """
    if not texts:
        raise ConfigError("a degradation is named, as in jpeg:75-95, got none")
    made = [_chain(text) for text in texts]
    return made[0] if len(made) == 1 else OneOf(*made)


def _chain(text: str) -> Degradation:
    parts = [_one(part) for part in text.split("+")]
    return parts[0] if len(parts) == 1 else Each(*parts)


def _one(text: str) -> Degradation:
    if text == "none":
        return Clean()
    found = re.fullmatch(r"(\w+):(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", text.replace("jpg", "jpeg"))
    if found is None or found[1] not in _KINDS:
        known = ", ".join(f"{name}:A-B" for name in _KINDS)
        raise ConfigError(f"{text!r} is no degradation; known: {known} and none, joined by +")
    low = _number(found[2])
    return _KINDS[found[1]]((low, _number(found[3]) if found[3] else low))


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def _range(given: Range, what: str, least: float, greatest: float) -> tuple[float, float]:
    low, high = given if isinstance(given, tuple) else (given, given)
    if not least <= low <= high <= greatest:
        raise ConfigError(f"{what} is from {least:g} to {greatest:g}, got {low:g} to {high:g}")
    return low, high


def _drawn(between: tuple[float, float], lr: Tensor) -> Tensor:
    """A number for each image."""
    low, high = between
    return torch.rand(lr.shape[:1], dtype=lr.dtype, device=lr.device) * (high - low) + low
