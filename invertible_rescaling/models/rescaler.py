"""The invertible rescaler between an HR image and (LR, z): one class, and its docstrings are half of it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from invertible_rescaling import registry
from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.functional import (
    check_bits,
    empty_with_layout,
    match_layout,
    pad_to_multiple,
    quantize,
)
from invertible_rescaling.kernels.dispatch import may_overwrite
from invertible_rescaling.kernels.workspace import scratch
from invertible_rescaling.layers.base import InvertibleModule, InvertibleSequential, check_state
from invertible_rescaling.layers.coupling import AffineCoupling, SubnetFactory
from invertible_rescaling.layers.haar import HaarDownsampling
from invertible_rescaling.layers.hooks import hooks_of, overridden
from invertible_rescaling.layers.latents import GaussianLatent, WaveletLatent, ZeroLatent
from invertible_rescaling.layers.subnets import CRDB, RRDB, Conv, DenseBlock
from invertible_rescaling.models.checks import check_image, check_tiles, original_size
from invertible_rescaling.models.config import (
    blocks_per_stage,
    check_count,
    check_scale,
    require_registered,
    resolve_latent,
    resolve_subnet,
)
from invertible_rescaling.models.engine import FlowEngine, Precision, at_precision
from invertible_rescaling.models.pretrained_model import PretrainedModel

__all__ = ["InvertibleRescaler"]

for _name, _subnet in {"conv": Conv, "dense": DenseBlock, "crdb": CRDB, "rrdb": RRDB}.items():
    registry.register_subnet(_name, _subnet)
for _name, _latent in {"wavelet": WaveletLatent, "gaussian": GaussianLatent, "zero": ZeroLatent}.items():
    registry.register_latent(_name, _latent)

# What both directions of a rescaler and of its flow come to, which exact tiles do without.
_OWN_STEPS = ("forward", "inverse", "_shrink", "_enlarge", "_run", "_split", "_join")
_FLOW_STEPS = ("forward", "inverse", "__iter__", "__len__", "__getitem__")

Result = TypeVar("Result")


class InvertibleRescaler(PretrainedModel):
    r"""Shrinks images by a power of two and brings them back, as one learned bijection.

    ``scale = 2**L`` takes L stages, each a Haar step on all channels so far (3 -> 12 -> 48 -> 192)
    followed by affine couplings whose x1 is the low-pass image. The first ``channels`` channels of the
    result are the LR image, the others the latent z.

    - :meth:`downscale` and :meth:`upscale` are the two calls for images: any size, 8-bit LR, z left behind.
    - ``model(hr)`` and :meth:`inverse` are the bijection itself, with z and with nothing rounded.

    The bijection is exact up to rounding as long as the sub-networks' gain is moderate, which holds for
    trained weights: see :func:`~invertible_rescaling.testing.check_invertible`.

    References:
        Xiao et al. 2020, *Invertible Image Rescaling* (IRN: ``subnet="dense"``, ``latent="gaussian"``);
        Mo & Chen 2021 (IIRN: ``subnet="crdb"``, ``latent="wavelet"``).

    Args:
        scale: 2, 4, 8, ...
        channels: of the image; 3 for RGB.
        blocks: couplings per stage, one number for all stages or one for each.
        subnet: a registered name (``"crdb"``, ``"dense"``, ``"rrdb"``, ``"conv"``), a dictionary with the
            name and options (``{"name": "crdb", "growth": 16}``), or a factory
            ``subnet(in_channels, out_channels)``.
        latent: what :meth:`upscale` feeds in place of z: a registered name (``"wavelet"``, ``"gaussian"``,
            ``"zero"``), a dictionary with the name and options, or a module that maps LR to z.
        clamp: bound of the couplings' log-scale.

    Raises:
        ConfigError: arguments that do not fit together.
        UnknownNameError: no sub-network or latent has that name.

    Example:
        >>> import torch
        >>> from invertible_rescaling import InvertibleRescaler
        >>> model = InvertibleRescaler(4, blocks=2).eval()
        >>> hr = torch.rand(1, 3, 37, 50)
        >>> lr = model.downscale(hr)
        >>> lr.shape
        torch.Size([1, 3, 10, 13])
        >>> model.upscale(lr, size=(37, 50)).shape
        torch.Size([1, 3, 37, 50])
        >>> lr, z = model(torch.rand(2, 3, 8, 12))
        >>> lr.shape, z.shape
        (torch.Size([2, 3, 2, 3]), torch.Size([2, 45, 2, 3]))
    """

    _reversible = False
    _engine: FlowEngine | None = None

    def __init__(
        self,
        scale: int,
        channels: int = 3,
        blocks: int | Sequence[int] = 8,
        subnet: str | Mapping[str, Any] | SubnetFactory = "crdb",
        latent: str | Mapping[str, Any] | nn.Module = "wavelet",
        clamp: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = check_scale(scale)
        self.channels = check_count("channels", channels, least=1)
        self.levels = self.scale.bit_length() - 1
        self.blocks = blocks_per_stage(blocks, self.levels)
        self.clamp = clamp
        make_subnet, self._subnet_spec = resolve_subnet(subnet)
        self.latent, self._latent_spec = resolve_latent(latent, self.scale)
        layers: list[InvertibleModule] = []
        width = self.channels
        for count in self.blocks:
            layers.append(HaarDownsampling(width))
            width *= 4
            layers.extend(AffineCoupling(width, self.channels, make_subnet, clamp) for _ in range(count))
        self.flow = InvertibleSequential(*layers)

    @property
    def latent_channels(self) -> int:
        """Channels of z: ``channels * (scale**2 - 1)``."""
        return self.channels * (self.scale**2 - 1)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, which rebuild this model's structure.

        Raises:
            ConfigError: the sub-network or the latent is not registered, so that no file could name it.
        """
        return {
            "scale": self.scale,
            "channels": self.channels,
            "blocks": list(self.blocks),
            "subnet": require_registered("subnet", self._subnet_spec),
            "latent": require_registered("latent", self._latent_spec),
            "clamp": self.clamp,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the untrained model that a :attr:`config` describes.

        Raises:
            ConfigError: it is out of range, or a super-resolver's.
            UnknownNameError: a part's name is not registered.
            TypeError: it has other keys.

        Example:
            >>> from invertible_rescaling import InvertibleRescaler, iirn_x4
            >>> InvertibleRescaler.from_config(iirn_x4(blocks=1).config).blocks
            (1, 1)
        """
        if "architecture" in config:
            raise ConfigError(f"the configuration is of {config['architecture']!r}, not of an {cls.__name__}")
        return cls(**config)

    def enable_reversible_backprop(self, enabled: bool = True) -> Self:
        """Let training recompute activations instead of storing them; return the model.

        The memory of a step then does not grow with the number of couplings; the step takes about a third
        longer. Gradients equal plain ones up to rounding, as
        :func:`~invertible_rescaling.layers.reversible_forward` states with its conditions. The forms with
        a log-determinant keep plain backpropagation.

        Args:
            enabled: False for plain backpropagation, as it is at first.

        Example:
            >>> import torch
            >>> from invertible_rescaling import RescalingLoss, iirn_x4
            >>> model = iirn_x4(blocks=(1, 1)).enable_reversible_backprop()
            >>> RescalingLoss()(model, torch.rand(2, 3, 32, 32)).total.backward()
        """
        self._reversible = enabled
        return self

    def with_engine(self, engine: FlowEngine | None) -> Self:
        """Return a model of the same weights whose flow an engine runs where no gradient is asked for.

        Both directions, :meth:`downscale` and :meth:`upscale` among them, then go by the engine, whole or in
        tiles with an ``overlap``. Tiles without one, and forms with a log-determinant, run on PyTorch. Copies
        and pickles of the model leave the engine behind.

        Args:
            engine: one of :mod:`invertible_rescaling.engines` or your own, made for this model; ``None`` for
                PyTorch's operations.

        Example:
            >>> from invertible_rescaling import iirn_x4
            >>> from invertible_rescaling.engines import CudaGraphs
            >>> model = iirn_x4(blocks=1).eval()
            >>> fast = model.with_engine(CudaGraphs(model))
        """
        twin = copy.copy(self)
        twin._engine = engine
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the engine, which is made for this model alone."""
        return {name: value for name, value in vars(self).items() if name != "_engine"}

    def forward(self, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Map HR ``(B, C, H, W)``, sides multiples of the scale, to LR and z; nothing is rounded."""
        self._check_hr(hr)
        if self._engine is not None and may_overwrite(hr):
            return self._split(self._run(partial(self._engine, inverse=False), hr))
        if not self._reversible:
            return self._split(self._run(self.flow, hr))
        from invertible_rescaling.layers.reversible import (
            reversible_forward,  # few need it, and it takes its time
        )

        return self._split(self._run(partial(reversible_forward, self.flow), hr))

    def inverse(self, lr: Tensor, z: Tensor) -> Tensor:
        """Map LR ``(B, C, h, w)`` and z ``(B, C*(scale**2-1), h, w)`` back to HR, ``scale`` times larger."""
        state = self._join(lr, z)
        if self._engine is not None and may_overwrite(state):
            return self._run(partial(self._engine, inverse=True), state)
        if not self._reversible:
            return self._run(self.flow.inverse, state)
        from invertible_rescaling.layers.reversible import reversible_inverse

        return self._run(partial(reversible_inverse, self.flow), state)

    def forward_with_log_det(self, hr: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return ``(lr, z)`` and log|det d(lr, z)/d(hr)| of shape ``(B,)``."""
        self._check_hr(hr)
        y, log_det = self._run(self.flow.forward_with_log_det, hr)
        return self._split(y), log_det

    def inverse_with_log_det(self, lr: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return HR and log|det d(hr)/d(lr, z)| of shape ``(B,)``."""
        return self._run(self.flow.inverse_with_log_det, self._join(lr, z))

    @torch.no_grad()
    def downscale(
        self,
        hr: Tensor,
        *,
        bits: int = 8,
        precision: Precision | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Shrink images to LR as it would be stored.

        Sides that are not multiples of the scale are padded by repeating the last row and column.

        Args:
            hr: ``(B, C, H, W)`` in [0, 1], any H and W of at least 1.
            bits: depth LR is rounded to.
            precision: of the sub-networks: ``"bf16"`` on hardware that computes it, ``"fp32"``, or as
                autocast around the call says. The state stays in the dtype of ``hr``.
            tile: work in tiles of this many HR pixels a side, a multiple of the scale. The result is the same
                up to rounding; memory beyond ``hr`` and the result is a float copy of one image of the batch,
                and what a tile takes. A sub-network that pools globally, n times one after the other, runs
                n + 1 times. Layers do not run as modules: none may be overridden, patched or hooked.
            overlap: with ``tile``, let each tile go through on its own, seen with this many HR pixels around
                it, so that memory beyond ``hr`` and the result does not depend on the image. From
                :attr:`receptive_field` on the result is the same where nothing is pooled globally; CRDB pools
                over what each tile sees.
            progress: with ``tile``, called now and then with the share of the work that is done, 0 to 1.

        Returns:
            ``(B, C, ceil(H/scale), ceil(W/scale))`` in [0, 1], every value exactly
            ``k / (2**bits - 1)``, in the memory format of ``hr``.

        Raises:
            ShapeError, DtypeError, ValueRangeError: on what is no image batch in [0, 1], or on another number
                of bits than 1 to 16.
            ConfigError: on a precision, tile or overlap that cannot be. Without ``overlap``, where the
                receptive radius of a sub-network is unknown
                (:func:`~invertible_rescaling.tiling.receptive_radius_of`), the model or one of its layers is
                overridden, patched or hooked, or a layer is no ``CouplingLayer``.

        Example:
            >>> import torch
            >>> from invertible_rescaling import iirn_x4
            >>> model = iirn_x4(blocks=1)
            >>> model.downscale(torch.rand(1, 3, 1, 4000)).shape
            torch.Size([1, 3, 1, 1000])
            >>> model.downscale(torch.rand(1, 3, 300, 200), tile=128).shape
            torch.Size([1, 3, 75, 50])
        """
        check_image(hr, self.channels, "InvertibleRescaler.downscale")
        self._check_dtype(hr)
        check_bits(bits)
        check_tiles(tile, overlap, self.scale)
        with at_precision(precision, hr.device):
            if tile is None:
                return match_layout(hr, quantize(self._shrink(hr), bits))
            from invertible_rescaling.tiling import exact, independent  # few need them, and they take long

            small = (-(-side // self.scale) for side in hr.shape[-2:])
            lr = empty_with_layout(hr, (hr.shape[0], self.channels, *small))
            if overlap is None:
                self._check_followed()
                exact.shrink(self.flow, hr, lr, tile, self.scale, bits, progress)
            else:
                independent.shrink(
                    lambda piece: quantize(self._shrink(piece), bits),
                    hr,
                    lr,
                    tile,
                    overlap,
                    self.scale,
                    progress,
                )
            return lr

    @torch.no_grad()
    def upscale(
        self,
        lr: Tensor,
        size: tuple[int, int] | None = None,
        *,
        latent: Tensor | None = None,
        precision: Precision | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Bring LR images back to full size.

        Args:
            lr: ``(B, C, h, w)`` in [0, 1], as :meth:`downscale` made it or as read from a file.
            size: the original (H, W); ``scale`` times LR's by default. The padding is cut off again.
            latent: a z to use in place of the model's own latent.
            precision: as for :meth:`downscale`.
            tile: as for :meth:`downscale`, in HR pixels. A latent that declares no ``receptive_radius``, such
                as random noise, is made for all of LR at once, and is as large as HR.
            overlap: as for :meth:`downscale`, in HR pixels.
            progress: as for :meth:`downscale`.

        Returns:
            ``(B, C, H, W)``, clamped to [0, 1], in the memory format of ``lr``.

        Raises:
            ShapeError: ``size`` is not one that downscales to LR's, or a shape is wrong.
            DtypeError, ValueRangeError: on what is no image batch in [0, 1].
            ConfigError: as for :meth:`downscale`.

        Example:
            >>> import torch
            >>> from invertible_rescaling import iirn_x4
            >>> model, hr = iirn_x4().eval(), torch.rand(1, 3, 3, 5)
            >>> model.upscale(model.downscale(hr), size=hr.shape[-2:]).shape
            torch.Size([1, 3, 3, 5])
        """
        check_image(lr, self.channels, "InvertibleRescaler.upscale")
        self._check_dtype(lr)
        height, width = original_size(lr, size, self.scale)
        check_tiles(tile, overlap, self.scale)
        with at_precision(precision, lr.device):
            if tile is None:
                return match_layout(lr, self._enlarge(lr, latent)[..., :height, :width])
            from invertible_rescaling.tiling import exact, independent

            if overlap is None:
                self._check_followed()
            z = independent.latent_in_windows(self.latent if latent is None else latent, lr, self._check_pair)
            hr = empty_with_layout(lr, (lr.shape[0], self.channels, height, width))
            if overlap is None:
                exact.enlarge(self.flow, lr, z, hr, tile, self.scale, progress)
            else:
                independent.enlarge(self._enlarge, lr, z, hr, tile, overlap, self.scale, progress)
            return hr

    @property
    def receptive_field(self) -> int:
        """HR pixels to each side that a pixel of either direction depends on, at most, global pooling aside.

        A latent that declares no ``receptive_radius`` is not counted.

        Raises:
            ConfigError: how far a sub-network reaches is not known, or the model or one of its layers is
                overridden, patched or hooked, or a layer is no ``CouplingLayer``.

        Example:
            >>> from invertible_rescaling import irn_x4
            >>> irn_x4(blocks=1).receptive_field
            63
        """
        from invertible_rescaling.tiling import independent

        self._check_followed()
        return independent.receptive_field(self.flow, self.latent)

    def _check_followed(self) -> None:
        """Refuse to go by the layers where the bijection may be more than one after the other."""
        from invertible_rescaling.tiling.receptive_field import not_followed

        for who, module, known, methods in (
            (type(self).__name__, self, InvertibleRescaler, _OWN_STEPS),
            ("the flow", self.flow, InvertibleSequential, _FLOW_STEPS),
        ):
            method = overridden(type(module), known, methods)
            found = f"overrides {method}()" if method is not None else hooks_of(module)
            if found is not None:
                raise not_followed(f"{who} {found}")

    def _shrink(self, hr: Tensor) -> Tensor:
        """LR before it is rounded."""
        lr, _ = self(pad_to_multiple(hr, self.scale))
        return lr  # type: ignore[no-any-return]

    def _enlarge(self, lr: Tensor, latent: Tensor | None) -> Tensor:
        """HR in full multiples of the scale."""
        return self.inverse(lr, self.latent(lr) if latent is None else latent).clamp(0, 1)

    def _run(self, direction: Callable[[Tensor], Result], state: Tensor) -> Result:
        """Run one direction of the flow; for inference, in the memory format convolutions are fastest in."""
        if not may_overwrite(state):
            return direction(state)
        kind = state.device.type
        half = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if kind == "cpu" or half:
            state = state.contiguous(memory_format=torch.channels_last)
        with scratch():
            return direction(state)

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, : self.channels], y[:, self.channels :]

    def _join(self, lr: Tensor, z: Tensor) -> Tensor:
        self._check_pair(lr, z)
        return torch.cat((lr, z), dim=1)

    def _check_pair(self, lr: Tensor, z: Tensor) -> None:
        check_state(lr, self.channels, "the LR image of a rescaler")
        self._check_dtype(lr)
        check_state(z, self.latent_channels, "the latent of a rescaler")
        if z.dtype != lr.dtype:
            raise DtypeError(f"LR and z must have one dtype, got {lr.dtype} and {z.dtype}; convert one")
        if z.shape[0] != lr.shape[0] or z.shape[2:] != lr.shape[2:]:
            raise ShapeError(
                f"LR {tuple(lr.shape)} and z {tuple(z.shape)} must have the same batch, height and width"
            )

    def _check_hr(self, hr: Tensor) -> None:
        check_state(hr, self.channels, "InvertibleRescaler")
        self._check_dtype(hr)
        if hr.shape[2] % self.scale or hr.shape[3] % self.scale:
            raise ShapeError(
                f"the bijection needs height and width to be multiples of {self.scale}, got "
                f"{tuple(hr.shape)}; downscale() takes any size"
            )

    def _check_dtype(self, x: Tensor) -> None:
        for weight in self.parameters():  # the first alone; see definer() for why not by next()
            if weight.dtype != x.dtype:
                raise DtypeError(
                    f"the image is {x.dtype} and the model's weights are {weight.dtype}; "
                    f"convert one, as in image.to({weight.dtype}) (the state is float32 or float64)"
                )
            break

    def extra_repr(self) -> str:
        return f"scale={self.scale}, channels={self.channels}, blocks={self.blocks}, clamp={self.clamp}"
