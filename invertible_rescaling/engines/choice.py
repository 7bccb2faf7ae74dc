"""Engines by name, and the fastest of them."""

from importlib.util import find_spec

import torch

from invertible_rescaling.engines.cuda_graphs import CudaGraphs
from invertible_rescaling.engines.graphs import GraphEngine, OnnxRuntime, OpenVino
from invertible_rescaling.errors import UnknownNameError
from invertible_rescaling.models.engine import FlowEngine
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["create_engine", "list_engines"]

_GRAPHS: dict[str, type[GraphEngine]] = {engine.name: engine for engine in (OnnxRuntime, OpenVino)}


def list_engines(*, installed: bool = False) -> list[str]:
    """The names that :func:`create_engine` takes.

    Args:
        installed: leave out those that need a package or a device that is not here.

    Example:
        >>> from invertible_rescaling.engines import list_engines
        >>> list_engines()
        ['torch', 'cudagraphs', 'onnxruntime', 'openvino']
    """
    names = ["torch"]
    if not installed or torch.cuda.is_available():
        names.append("cudagraphs")
    return names + [
        name
        for name, engine in _GRAPHS.items()
        if not installed or all(find_spec(package) is not None for package in engine.needs)
    ]


def create_engine(name: str, model: InvertibleRescaler, *, threads: int | None = None) -> FlowEngine | None:
    """Make the engine of a name for a model, for its method ``with_engine``.

    Args:
        name: ``"torch"`` (``None``: PyTorch's operations), ``"cudagraphs"``, ``"onnxruntime"`` or
            ``"openvino"``.
        model: whose flow it is to run.
        threads: of the engines for CPUs; as many as PyTorch has by default.

    Raises:
        UnknownNameError: there is no such engine.
        ConfigError, DtypeError, MissingDependencyError: as for the engine.

    Example:
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.engines import create_engine
        >>> model = iirn_x4(blocks=1).eval()
        >>> fast = model.with_engine(create_engine("cudagraphs", model))
    """
    if name == "torch":
        return None
    if name == "cudagraphs":
        return CudaGraphs(model)
    if name not in _GRAPHS:
        raise UnknownNameError(f"there is no engine {name!r}; there are {', '.join(list_engines())}")
    return _GRAPHS[name](model, threads=threads)
