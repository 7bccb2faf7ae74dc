"""Both directions as modules of their own, and as graphs that run elsewhere: ``torch.export`` and ONNX.

``downscale`` and ``upscale`` are methods of one model, and exporters take modules with one ``forward``. The
graphs take any batch and size; the fast kernels step aside, and PyTorch's operations are what is written.
"""

import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from invertible_rescaling._version import __version__
from invertible_rescaling.errors import ConfigError, MissingDependencyError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.functional import check_bits
from invertible_rescaling.layers.latents import GaussianLatent
from invertible_rescaling.models.loading import AnyModel

__all__ = ["OPSET", "Direction", "Downscale", "Upscale", "export_onnx", "export_program"]

OPSET = 18  # the first whose Resize can do what PyTorch's bicubic does, antialiased too

_NEEDED = ("onnx", "onnxscript")


class Direction(nn.Module, ABC):
    """One direction of a model as a module: :class:`Downscale` or :class:`Upscale`.

    Args:
        model: whose direction it is; it is shared, not copied.

    Raises:
        ConfigError: it is neither a rescaler nor a super-resolver.
    """

    name: str
    argument: str
    result: str

    def __init__(self, model: AnyModel) -> None:
        super().__init__()
        if not isinstance(model, AnyModel):
            raise ConfigError(
                f"{type(self).__name__} takes an InvertibleRescaler or a super-resolver of "
                f"invertible_rescaling.models.super_resolution, got {type(model).__name__}"
            )
        self.model = model
        self.train(model.training)

    @property
    @abstractmethod
    def least_side(self) -> int:
        """The least height and width that :func:`export_program` is made for."""

    def example(self) -> Tensor:
        """A batch ``(2, C, H, W)`` that the direction takes."""
        weight = next(self.parameters(), torch.empty(0))
        shape = (2, self.model.channels, 2 * self.least_side, 3 * self.least_side)
        return torch.full(shape, 0.5, dtype=weight.dtype, device=weight.device)


class Downscale(Direction):
    """``model.downscale`` as a module: HR in [0, 1] to LR as it would be stored.

    Shapes:
        ``(B, C, H, W) -> (B, C, ceil(H/scale), ceil(W/scale))``, any H and W of at least 1: what is no
        multiple of the scale is padded within, by repeating the last row and column.

    Args:
        model: an :class:`~invertible_rescaling.InvertibleRescaler`, or a super-resolver.
        bits: depth LR is rounded to.

    Raises:
        ConfigError: ``model`` is something else.
        ValueRangeError: ``bits`` is not from 1 to 16.

    Example:
        >>> import torch
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.export import Downscale
        >>> Downscale(iirn_x4(blocks=1))(torch.rand(2, 3, 30, 41)).shape
        torch.Size([2, 3, 8, 11])
    """

    name, argument, result = "downscale", "hr", "lr"

    def __init__(self, model: AnyModel, bits: int = 8) -> None:
        super().__init__(model)
        check_bits(bits)
        self.bits = bits

    def forward(self, hr: Tensor) -> Tensor:
        return self.model.downscale(hr, bits=self.bits)

    @property
    def least_side(self) -> int:
        # An LR side of 1 would be a case of its own to PyTorch, which tells strides apart by it.
        return self.model.scale + 1

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


class Upscale(Direction):
    """``model.upscale`` as a module: LR to SR, ``scale`` times larger, clamped to [0, 1].

    What a side was padded by is still there; cut it off with ``sr[..., :H, :W]``.

    Shapes:
        ``(B, C, h, w) -> (B, C, scale*h, scale*w)``, any h and w of at least 1.

    Args:
        model: as for :class:`Downscale`. Its latent is part of the direction.

    Raises:
        ConfigError: ``model`` is something else.

    Example:
        >>> import torch
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.export import Upscale
        >>> Upscale(iirn_x4(blocks=1))(torch.rand(2, 3, 8, 11)).shape
        torch.Size([2, 3, 32, 44])
    """

    name, argument, result = "upscale", "lr", "sr"

    def forward(self, lr: Tensor) -> Tensor:
        return self.model.upscale(lr)

    @property
    def least_side(self) -> int:
        return 2


def export_program(direction: Direction) -> ExportedProgram:
    """Capture a direction by ``torch.export``, for any batch, height and width.

    The program takes sides of more than ``scale`` pixels for HR, and any for LR. Values are not checked to be
    in [0, 1]; LR is clamped as it is rounded. Run it under ``torch.no_grad()``: unlike the two methods, a
    program does not switch gradients off itself.

    Args:
        direction: a :class:`Downscale` or :class:`Upscale` of a model in evaluation mode.

    Raises:
        ConfigError: the model is in training mode; or its latent draws random numbers, so that no file could
            repeat what it does.

    Example:
        >>> import torch
        >>> from invertible_rescaling import linear_x2
        >>> from invertible_rescaling.export import Downscale, export_program
        >>> model, hr = linear_x2().eval(), torch.rand(1, 3, 30, 41)
        >>> program = export_program(Downscale(model))
        >>> with torch.no_grad():
        ...     torch.allclose(program.module()(hr), model.downscale(hr))
        True
    """
    model = direction.model
    if model.training:
        raise ConfigError(f"the {type(model).__name__} is in training mode; call model.eval() before export")
    latent = getattr(model, "latent", None) if isinstance(direction, Upscale) else None
    if isinstance(latent, GaussianLatent) and latent.std > 0:
        raise ConfigError(_random(f"GaussianLatent(std={latent.std:g})"))
    least = direction.least_side
    sizes = {0: Dim("batch"), 2: Dim("height", min=least), 3: Dim("width", min=least)}
    with torch.no_grad():
        program = torch.export.export(
            direction, (direction.example(),), dynamic_shapes=(sizes,), strict=False
        )
    if latent is not None and not isinstance(latent, GaussianLatent) and _draws(program):
        raise ConfigError(_random(type(latent).__name__))
    return program


def export_onnx(
    direction: Direction,
    path: str | os.PathLike[str],
    *,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a direction as one ONNX file, for any batch, height and width of at least 1.

    The input is ``hr`` or ``lr``, the output ``lr`` or ``sr``, in the dtype of the model. The file's metadata
    says ``library``, ``direction``, ``scale`` and, where the model can be named, its ``config`` as JSON.

    Args:
        direction: as for :func:`export_program`.
        path: where to; an existing file is replaced, in one step.
        opset: the version of ONNX's operators, 18 at least.
        metadata: more to say in the file, such as the model's name, its weights' hash and their licence.

    Raises:
        ConfigError: as for :func:`export_program`; ``opset`` is below 18; ``metadata`` is not all strings,
            or says what the file says already.
        MissingDependencyError: onnx or onnxscript is not installed.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile, pathlib
        >>> from invertible_rescaling import linear_x2
        >>> from invertible_rescaling.export import Downscale, export_onnx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "downscale.onnx")
        ...     export_onnx(Downscale(linear_x2().eval()), path, metadata={"model": "linear_x2"})
        ...     path.stat().st_size > 1000
        True
    """
    if not isinstance(opset, int) or opset < OPSET:
        raise ConfigError(f"the opset must be {OPSET} or more, got {opset!r}")
    facts = _facts(direction, metadata or {})
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"ONNX files need {' and '.join(missing)}: pip install 'invertible_rescaling[onnx]'"
        )
    program = export_program(direction)
    with warnings.catch_warnings():
        # Of torch itself, as it copies the program.
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        exported = torch.onnx.export(
            program,
            (direction.example(),),
            dynamo=True,
            opset_version=opset,
            verbose=False,
            input_names=[direction.argument],
            output_names=[direction.result],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
        )
    if exported is None:  # by its type alone: with dynamo=True there is a program
        raise RuntimeError("torch.onnx.export returned no program")
    exported.model.metadata_props.update(facts)
    file = exported.model_proto
    for part in (*file.graph.node, *file.graph.value_info, *file.graph.initializer, file.graph):
        part.ClearField("metadata_props")  # stack traces, with the paths of whoever exports
    write_atomically(path, file.SerializeToString(deterministic=True))


def _facts(direction: Direction, more: Mapping[str, str]) -> dict[str, str]:
    facts = {
        "library": f"invertible_rescaling {__version__}",
        "direction": direction.name,
        "scale": str(direction.model.scale),
    }
    with suppress(ConfigError):  # made of parts without a registered name
        facts["config"] = json.dumps(direction.model.config)
    for key, value in more.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"ONNX metadata is strings, got {key!r}: {value!r}")
        if key in facts:
            raise ConfigError(f"the file says {key}={facts[key]!r} itself; leave it out of metadata")
    return facts | dict(more)


def _draws(program: ExportedProgram) -> bool:
    """Return whether any of a program's operators draws random numbers."""
    tags = (getattr(node.target, "tags", ()) for node in program.graph.nodes)
    return any(torch.Tag.nondeterministic_seeded in found for found in tags)


def _random(latent: str) -> str:
    return (
        f"{latent} draws new noise on every call, which an exported file could not repeat; pass "
        "latent='zero' to the model's factory, which is its mean"
    )
