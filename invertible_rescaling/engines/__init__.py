"""What runs the flow of a rescaler in place of PyTorch's operations one by one."""

from invertible_rescaling.engines.choice import create_engine, fastest_engine, list_engines
from invertible_rescaling.engines.cuda_graphs import CudaGraphs
from invertible_rescaling.engines.graphs import GraphEngine, OnnxRuntime, OpenVino

__all__ = [
    "CudaGraphs",
    "GraphEngine",
    "OnnxRuntime",
    "OpenVino",
    "create_engine",
    "fastest_engine",
    "list_engines",
]
