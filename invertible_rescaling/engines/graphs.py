"""Engines that run a flow as an ONNX graph on the CPU: ONNX Runtime and OpenVINO."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invertible_rescaling.errors import ConfigError, DtypeError, MissingDependencyError
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["GraphEngine", "OnnxRuntime", "OpenVino"]

Array = NDArray[np.float32]
Compiled = Callable[[Array], Array]


class GraphEngine(ABC):
    """An engine that compiles both directions of a flow; :class:`OnnxRuntime` or :class:`OpenVino`.

    It computes in float32 on the CPU, whatever autocast says. A direction is compiled at its first call, for
    any batch and size, with the weights as they are then: when they change, another engine has to be made.
    Several threads may call it.

    Args:
        model: of this library's own layers, in float32, on the CPU.
        threads: to compute with; as many as PyTorch does (``torch.get_num_threads()``) by default.

    Raises:
        ConfigError: the model has layers or sub-networks of other classes, hooks, or is not on the CPU.
        DtypeError: its weights are not float32.
        MissingDependencyError: what the engine needs is not installed.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def __init__(self, model: InvertibleRescaler, *, threads: int | None = None) -> None:
        missing = [package for package in self.needs if find_spec(package) is None]
        if missing:
            raise MissingDependencyError(
                f"the engine {self.name!r} needs {' and '.join(missing)}: "
                f"pip install 'invertible_rescaling[{self._extra}]'"
            )
        from invertible_rescaling.export.flow_graph import obstacle  # needs onnx

        problem = obstacle(model.flow)
        if problem is not None:
            raise ConfigError(
                f"the engine {self.name!r} runs flows of this library's own layers; this one {problem}; "
                "use the engine 'torch'"
            )
        for weight in model.parameters():
            if weight.device.type != "cpu":
                raise ConfigError(
                    f"the engine {self.name!r} runs on the CPU, the model is on {weight.device}"
                )
            if weight.dtype != torch.float32:
                raise DtypeError(
                    f"the engine {self.name!r} computes in float32, the weights are {weight.dtype}"
                )
        self._model = model
        self._threads = threads or torch.get_num_threads()
        self._compiled: dict[bool, tuple[Any, Compiled]] = {}
        self._lock = threading.Lock()

    def __call__(self, state: Tensor, *, inverse: bool) -> Tensor:
        if state.dtype != torch.float32 or state.device.type != "cpu":
            raise DtypeError(
                f"the engine {self.name!r} takes float32 on the CPU, got {state.dtype} on {state.device}"
            )
        with self._lock:
            version = [_version(weight) for weight in self._model.flow.parameters()]
            if inverse not in self._compiled:
                self._compiled[inverse] = version, self._compile(self._graph(inverse=inverse))
        known, run = self._compiled[inverse]
        if version != known:
            raise ConfigError(
                f"the weights have changed since the engine {self.name!r} was made; make another: "
                "model.with_engine(create_engine(NAME, model))"
            )
        if state.numel() == 0:
            return self._model.flow.inverse(state) if inverse else self._model.flow(state)
        return torch.from_numpy(run(np.ascontiguousarray(state.detach().numpy())))

    def _graph(self, *, inverse: bool) -> bytes:
        from invertible_rescaling.export.flow_graph import add_flow
        from invertible_rescaling.export.graph import Graph
        from invertible_rescaling.export.onnx_file import OPSET

        graph, model = Graph(OPSET), self._model
        channels = model.channels * (model.scale**2 if inverse else 1)
        made = add_flow(graph, model.flow, "state", channels, torch.float32, inverse=inverse)
        given, after = ("state", ("batch", channels, "h", "w")), ("made", ("batch", None, "H", "W"))
        file = graph.model(made, given, after, torch.float32)
        content: bytes = file.SerializeToString()
        return content

    @property
    def _extra(self) -> str:
        return "onnx" if self.name == "onnxruntime" else self.name

    @abstractmethod
    def _compile(self, graph: bytes) -> Compiled:
        """Return a function of a state that several threads may call."""


class OnnxRuntime(GraphEngine):
    """Runs the flow by ONNX Runtime; needs the extra ``[onnx]``.

    Example:
        >>> import torch
        >>> from invertible_rescaling import linear_x4
        >>> from invertible_rescaling.engines import OnnxRuntime
        >>> model = linear_x4(weights="DEFAULT").eval()
        >>> fast, hr = model.with_engine(OnnxRuntime(model)), torch.rand(1, 3, 30, 41)
        >>> bool((fast.downscale(hr) - model.downscale(hr)).abs().max() < 1.5 / 255)
        True
    """

    name, needs = "onnxruntime", ("onnx", "onnxruntime")

    def _compile(self, graph: bytes) -> Compiled:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # errors; by default it speaks of devices it does not find
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        how = onnxruntime.RunOptions()
        # Memory of the largest picture so far would be kept.
        how.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

        def run(state: Array) -> Array:
            made: Array = session.run(None, {"state": state}, how)[0]
            return made

        return run


class OpenVino(GraphEngine):
    """Runs the flow by OpenVINO; needs the extra ``[openvino]``.

    Example:
        >>> from invertible_rescaling import linear_x4
        >>> from invertible_rescaling.engines import list_engines
        >>> if "openvino" in list_engines(installed=True):
        ...     from invertible_rescaling.engines import OpenVino
        ...     model = linear_x4(weights="DEFAULT").eval()
        ...     fast = model.with_engine(OpenVino(model, threads=2))
    """

    name, needs = "openvino", ("onnx", "openvino")

    def _compile(self, graph: bytes) -> Compiled:
        import openvino

        wanted = {
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": "f32",  # by default it takes bfloat16 where the processor has it
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(graph), "CPU", wanted)
        requests = threading.local()

        def run(state: Array) -> Array:
            if not hasattr(requests, "own"):
                requests.own = compiled.create_infer_request()
            made: Array = requests.own.infer([state])[0]
            return made

        return run


def _version(weight: Tensor) -> tuple[int, int]:
    """Where a weight lies, and how often it was changed there."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version
