"""Latents: what the inverse is fed in place of the true z, made from the LR image alone."""

import importlib
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from invertible_rescaling.errors import ConfigError, MissingDependencyError, ShapeError
from invertible_rescaling.functional import bicubic_resize, haar_decompose
from invertible_rescaling.kernels.dispatch import is_ordinary
from invertible_rescaling.layers.base import check_state
from invertible_rescaling.layers.local_details import local_details

__all__ = ["GaussianLatent", "Latent", "WaveletLatent", "ZeroLatent"]

_CORRECTIONS = ("ratio", "difference", "none")
RATIO_EPS = 0.05
RATIO_BOUNDS = (0.5, 2.0)


class Latent(nn.Module, ABC):
    """Maps an LR image ``(B, C, h, w)`` to a latent ``(B, C * (scale**2 - 1), h, w)``.

    A latent that depends on LR locally may declare ``receptive_radius``, the LR pixels to each side that a
    pixel of z depends on at most: work in tiles then asks for it window by window, and otherwise once for all
    of LR. A subclass that overrides ``forward`` must set ``receptive_radius`` itself; an inherited value is
    ignored, and so is a class's value where a latent is patched or hooked.

    Args:
        scale: a power of two; ``None`` takes it from the rescaler the latent is given to.

    Raises:
        ConfigError: ``scale`` is not a power of two of at least 2, or is missing when it is needed.
    """

    def __init__(self, scale: int | None = None) -> None:
        super().__init__()
        self._scale: int | None = None
        if scale is not None:
            self.bind(scale)

    @property
    def scale(self) -> int:
        """How many times smaller LR is than HR on each side."""
        if self._scale is None:
            name = type(self).__name__
            raise ConfigError(
                f"{name} has no scale yet: {name}(scale=4), or give it to an InvertibleRescaler"
            )
        return self._scale

    def bind(self, scale: int) -> "Latent":
        """Fix the scale, as a rescaler does with its latent; a scale once fixed stays."""
        if not isinstance(scale, int) or scale < 2 or scale & (scale - 1):
            raise ConfigError(f"the scale must be a power of two of at least 2, got {scale!r}")
        if self._scale not in (None, scale):
            raise ConfigError(
                f"this {type(self).__name__} is for scale {self._scale}, not {scale}; "
                f"make another for scale {scale}"
            )
        self._scale = scale
        return self

    @abstractmethod
    def forward(self, lr: Tensor) -> Tensor:
        """Return the latent for ``lr``, in its dtype and on its device."""

    @property
    def options(self) -> dict[str, Any]:
        """The JSON-able constructor arguments but for the scale; a checkpoint stores them."""
        return {}

    def _shape(self, lr: Tensor) -> tuple[int, int, int, int]:
        if not isinstance(lr, Tensor) or lr.dim() != 4:
            given = tuple(lr.shape) if isinstance(lr, Tensor) else type(lr).__name__
            raise ShapeError(f"{type(self).__name__} takes an LR image (B, C, h, w), got {given}")
        check_state(lr, lr.shape[1], type(self).__name__)
        batch, channels, height, width = lr.shape
        return batch, channels * (self.scale**2 - 1), height, width


class ZeroLatent(Latent):
    """All zeros: the mean of the Gaussian, and usually better than a draw from it.

    Example:
        >>> import torch
        >>> from invertible_rescaling import ZeroLatent
        >>> ZeroLatent(scale=4)(torch.rand(2, 3, 5, 7)).shape
        torch.Size([2, 45, 5, 7])
    """

    receptive_radius = 0

    def forward(self, lr: Tensor) -> Tensor:
        shape = self._shape(lr)
        return lr.new_zeros(shape)


class GaussianLatent(Latent):
    """Independent normal noise, IRN's latent.

    References:
        Xiao et al. 2020, *Invertible Image Rescaling*, section 3.1.

    Args:
        std: standard deviation, 0 or more.
        scale: as for every latent.
        seed: draw the same noise for the same shape on every call; ``None`` draws from the global
            generator, or from the one given to the call.

    Raises:
        ConfigError: ``std`` is negative or not finite; both a seed and a generator are given.

    Example:
        >>> import torch
        >>> from invertible_rescaling import GaussianLatent
        >>> latent, lr = GaussianLatent(std=0.5, scale=2, seed=0), torch.rand(1, 3, 4, 4)
        >>> torch.equal(latent(lr), latent(lr))
        True
    """

    def __init__(self, std: float = 1.0, *, scale: int | None = None, seed: int | None = None) -> None:
        super().__init__(scale)
        if isinstance(std, bool) or not isinstance(std, int | float) or not 0 <= std < math.inf:
            raise ConfigError(f"GaussianLatent needs a finite std of at least 0, got {std!r}")
        if seed is not None and not isinstance(seed, int):
            raise ConfigError(f"GaussianLatent needs an integer seed or None, got {seed!r}")
        self.std = float(std)
        self.seed = seed

    def forward(self, lr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        shape = self._shape(lr)
        if self.seed is not None:
            if generator is not None:
                raise ConfigError(
                    "GaussianLatent has a seed already; give it a generator or a seed, not both"
                )
            generator = torch.Generator(device=lr.device).manual_seed(self.seed)
        # As torch.randn, which does not take a generator and the sizes of an exported graph together.
        return self.std * lr.new_empty(shape).normal_(generator=generator)

    @property
    def options(self) -> dict[str, Any]:
        return {"std": self.std, "seed": self.seed}

    def extra_repr(self) -> str:
        return f"std={self.std}, seed={self.seed}"


class WaveletLatent(Latent):
    r"""IIRN's latent: the wavelet details of the LR image itself, enlarged.

    LR is enlarged to HR size by bicubic interpolation and decomposed again; what the decomposition puts
    beside the low-pass image is the latent. At each level the details of the image's own low-pass
    channels are corrected by comparing LR, brought to that level's size, with that level's LL:

    - ``"ratio"`` multiplies by :math:`(LR + \epsilon) / (LL + \epsilon)`, clamped to [0.5, 2], with
      :math:`\epsilon = 0.05`;
    - ``"difference"`` adds LR - LL;
    - ``"none"`` leaves them.

    It has no parameters. LR is nominally in [0, 1].

    References:
        Mo & Chen 2021, *Image super-resolution via invertible image rescaling*, section on the latent.

    Args:
        wavelet: ``"haar"`` (the library's own) or any discrete wavelet that pytorch-wavelets knows, such as
            ``"db2"`` or ``"bior2.2"``, scaled so that LL is a local mean.
        correction: ``"ratio"``, ``"difference"`` or ``"none"``.
        scale: as for every latent.

    Raises:
        ConfigError: an unknown wavelet or correction.
        MissingDependencyError: a wavelet other than Haar without a working pytorch-wavelets.

    Example:
        >>> import torch
        >>> from invertible_rescaling import WaveletLatent
        >>> WaveletLatent(scale=4)(torch.rand(2, 3, 5, 7)).shape
        torch.Size([2, 45, 5, 7])
        >>> WaveletLatent("db2", "none", scale=2)(torch.full((1, 3, 4, 4), 0.5)).abs().max() < 1e-6
        tensor(True)
    """

    def __init__(self, wavelet: str = "haar", correction: str = "ratio", *, scale: int | None = None) -> None:
        super().__init__(scale)
        if correction not in _CORRECTIONS:
            raise ConfigError(f"correction must be one of {', '.join(_CORRECTIONS)}, got {correction!r}")
        self.wavelet = wavelet
        self.correction = correction
        self.step = _HaarStep() if wavelet == "haar" else _WaveletStep(wavelet)

    def forward(self, lr: Tensor) -> Tensor:
        _, _, height, width = self._shape(lr)
        channels, factor = lr.shape[1], self.scale
        if self.wavelet == "haar" and lr.device.type == "cpu" and lr.numel() and is_ordinary(lr):
            return local_details(lr, factor, self._corrected)
        # Not antialiased: this is PyTorch's sharper kernel (a = -0.75), the one the latent was measured with.
        state = bicubic_resize(lr, (height * factor, width * factor), antialias=False)
        while factor > 1:
            factor //= 2
            state = self.step(state)
            size = (height * factor, width * factor)
            low = lr if factor == 1 else bicubic_resize(lr, size, antialias=False)
            state = self._correct(state, low, channels)
        return state[:, channels:]

    @property
    def receptive_radius(self) -> int:
        """LR pixels to each side that a pixel of z depends on, at most."""
        # A pixel depends on pixels of the finer state up to r = step.receptive_radius outside the four that
        # it covers: over all levels, up to r * (1 + 2 + ... + scale / 2) HR pixels outside its LR pixel.
        # Bicubic interpolation, from LR at each size, reads up to 2 LR pixels to each side of the one that it
        # is in.
        return -(-self.step.receptive_radius * (self.scale - 1) // self.scale) + 2

    def _correct(self, state: Tensor, low: Tensor, channels: int) -> Tensor:
        """Correct the details of the first ``channels`` channels of each detail band."""
        if self.correction == "none":
            return state
        bands = torch.unflatten(state, 1, (4, -1))
        own, rest = bands[:, :, :channels], bands[:, :, channels:]
        approximation, details = own[:, :1], own[:, 1:]
        target = low.unsqueeze(1)
        own = torch.cat((approximation, self._corrected(target, approximation, details)), dim=1)
        return torch.cat((own, rest), dim=2).flatten(1, 2)

    def _corrected(self, low: Tensor, approximation: Tensor, details: Tensor) -> Tensor:
        """Details, corrected by how LR at their size is to the approximation there."""
        if self.correction == "none":
            return details
        if self.correction == "difference":
            return details + (low - approximation)
        ratio = (low + RATIO_EPS) / (approximation + RATIO_EPS)
        return details * ratio.clamp(*RATIO_BOUNDS)

    @property
    def options(self) -> dict[str, Any]:
        return {"wavelet": self.wavelet, "correction": self.correction}

    def extra_repr(self) -> str:
        return f"wavelet={self.wavelet!r}, correction={self.correction!r}"


class _HaarStep(nn.Module):
    receptive_radius = 0  # pixels outside the four that make one

    def forward(self, x: Tensor) -> Tensor:
        return haar_decompose(x)


class _WaveletStep(nn.Module):
    """One level of a pytorch-wavelets transform in the scale and band order of the Haar step."""

    def __init__(self, wavelet: str) -> None:
        super().__init__()
        transform, known = _load_pytorch_wavelets()
        if wavelet not in known:
            raise ConfigError(f"no discrete wavelet is named {wavelet!r}; known: {', '.join(known)}")
        with torch.device("cpu"):
            self.transform = transform(J=1, wave=wavelet, mode="periodization")
        self._taps = dict(self.transform.named_buffers())
        for name, taps in self._taps.items():  # fixed, so no part of state_dict
            self.transform.register_buffer(name, taps.to(torch.get_default_device()), persistent=False)
        longest = max(taps.numel() for taps in self.transform.buffers())
        # Periodization wraps round; an edge as wide as the filters keeps the far side out of the picture.
        self.margin = 2 * math.ceil(longest / 2)
        self.receptive_radius = (longest - 1) // 2  # of the even number of taps, two lie in the middle

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, taps in self.transform.named_buffers():
            if not taps.is_meta:
                taps.copy_(self._taps[name])  # to_empty has left what the memory held
        return self

    def forward(self, x: Tensor) -> Tensor:
        margin, half = self.margin, self.margin // 2
        padded = pad(x, (margin, margin, margin, margin), mode="replicate")
        # The transform filters in its own dtype; taps and state meet in the state's.
        low, (details,) = self.transform.to(x.dtype)(padded)
        bands = torch.cat((low.unsqueeze(2), details), dim=2) / 2  # (B, C, 4, h, w), orthonormal -> mean
        height, width = x.shape[2] // 2, x.shape[3] // 2
        bands = bands[..., half : half + height, half : half + width]
        # pytorch-wavelets orders the details by rows first; the Haar step by columns.
        return bands[:, :, [0, 2, 1, 3]].transpose(1, 2).flatten(1, 2)


def _load_pytorch_wavelets() -> tuple[Any, list[str]]:
    """Import pytorch-wavelets, which needs PyWavelets and pkg_resources and warns about the latter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transform = importlib.import_module("pytorch_wavelets").DWTForward
            pywt = importlib.import_module("pywt")
    except ImportError as error:
        raise MissingDependencyError(
            f"wavelets other than 'haar' need pytorch-wavelets, whose import failed ({error}): "
            "pip install pytorch-wavelets PyWavelets 'setuptools<82'"
        ) from error
    return transform, sorted(pywt.wavelist(kind="discrete"))
