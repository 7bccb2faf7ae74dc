"""A direction as an ONNX file, for any batch and size."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec

from invertible_rescaling._version import __version__
from invertible_rescaling.errors import ConfigError, MissingDependencyError
from invertible_rescaling.export.directions import Direction
from invertible_rescaling.files import write_atomically

__all__ = ["OPSET", "export_onnx"]

OPSET = 18  # the first whose Resize can do what PyTorch's bicubic does, antialiased too

_NEEDED = ("onnx", "onnxscript")


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
    from invertible_rescaling.export.direction_graph import direction_graph, traced_graph  # needs onnx

    file = direction_graph(direction, opset) or traced_graph(direction, opset)
    for key, value in facts.items():
        file.metadata_props.add(key=key, value=value)
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
