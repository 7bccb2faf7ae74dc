"""What runs the flow of a rescaler in place of PyTorch's operations one by one."""

from invertible_rescaling.engines.choice import create_engine, list_engines
from invertible_rescaling.engines.cuda_graphs import CudaGraphs

__all__ = ["CudaGraphs", "create_engine", "list_engines"]
