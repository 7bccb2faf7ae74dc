"""Engines by name."""

from invertible_rescaling.engines.cuda_graphs import CudaGraphs
from invertible_rescaling.errors import UnknownNameError
from invertible_rescaling.models.engine import FlowEngine
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["create_engine", "list_engines"]

_ENGINES = {"cudagraphs": CudaGraphs}


def list_engines() -> list[str]:
    """The names that :func:`create_engine` takes.

    Example:
        >>> from invertible_rescaling.engines import list_engines
        >>> "torch" in list_engines()
        True
    """
    return ["torch", *_ENGINES]


def create_engine(name: str, model: InvertibleRescaler) -> FlowEngine | None:
    """Make the engine of a name for a model, for its method ``with_engine``.

    Args:
        name: ``"torch"`` (``None``: PyTorch's operations) or ``"cudagraphs"``.
        model: whose flow it is to run.

    Raises:
        UnknownNameError: there is no such engine.

    Example:
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.engines import create_engine
        >>> model = iirn_x4(blocks=1).eval()
        >>> fast = model.with_engine(create_engine("cudagraphs", model))
    """
    if name == "torch":
        return None
    if name not in _ENGINES:
        raise UnknownNameError(f"there is no engine {name!r}; there are {', '.join(list_engines())}")
    return _ENGINES[name](model)
