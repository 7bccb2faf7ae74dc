"""What runs the flow of a rescaler in place of PyTorch's operations one by one."""

from invertible_rescaling.engines.choice import create_engine, fastest_engine, list_engines
from invertible_rescaling.engines.cuda_graphs import CudaGraphs
from invertible_rescaling.engines.graphs import GraphEngine, OnnxRuntime, OpenVino
from invertible_rescaling.models.engine import FlowEngine

__all__ = [
    "CudaGraphs",
    "FlowEngine",
    "GraphEngine",
    "OnnxRuntime",
    "OpenVino",
    "create_engine",
    "fastest_engine",
    "list_engines",
]
