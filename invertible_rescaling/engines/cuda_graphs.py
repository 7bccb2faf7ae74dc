"""CUDA graphs: a GPU replays what it was told once, and waits for nobody."""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["CudaGraphs"]

Run = Callable[[Tensor], Tensor]


@dataclass
class _Captured:
    """A direction at one shape: where it reads, what makes it run, where it writes."""

    given: Tensor
    replay: Callable[[], None]
    made: Tensor


class CudaGraphs:
    """Runs the flow on a GPU as one CUDA graph a shape, direction and precision.

    The second call of a shape captures its graph, and the calls after it replay it: no time is lost on shapes
    that come once. Graphs share their memory, as much as the largest takes, and each keeps a state going in
    and one coming out. On other devices, while another graph is captured, and where a network cannot be
    captured, the flow runs as it is.

    Weights may change in place, as training changes them. Weights that are replaced, by ``model.to()`` say,
    make new graphs. What else a network goes by, such as attributes and hooks, stays as it was when captured.

    Args:
        model: whose flow it is.
        graphs: that are kept, one for each shape, direction and precision; the one that was not used for
            longest goes first.

    Example:
        >>> import torch
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.engines import CudaGraphs
        >>> model = iirn_x4(blocks=1).eval()  # .cuda()
        >>> model.with_engine(CudaGraphs(model)).downscale(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(self, model: InvertibleRescaler, *, graphs: int = 4) -> None:
        self._flow = model.flow
        self._graphs = graphs
        self._seen: OrderedDict[Hashable, _Captured | None] = OrderedDict()
        self._lock = threading.Lock()
        self._pool: Any = None
        self._last: Any = None  # an event: what the last replay wrote is copied
        self._refused = False

    def __call__(self, state: Tensor, *, inverse: bool) -> Tensor:
        run = self._flow.inverse if inverse else self._flow
        if self._refused or not _can_capture(state):
            return run(state)
        with self._lock, _device_of(state):
            weights = (weight.data_ptr() for weight in self._flow.parameters())
            kind = (inverse, state.shape, state.stride(), state.dtype, state.device)
            key = (*kind, *_precision(state), *weights)
            if key not in self._seen:
                self._remember(key, None)
                return run(state)
            captured = self._seen[key]
            if captured is None:
                try:
                    captured = self._capture(run, state)
                except RuntimeError as error:
                    self._refused = True
                    self._seen.clear()
                    first = str(error).strip().partition("\n")[0]
                    warnings.warn(f"going on without CUDA graphs: {first}", RuntimeWarning, stacklevel=2)
                    return run(state)
            self._remember(key, captured)
            return self._replayed(captured, state)

    def _remember(self, key: Hashable, captured: _Captured | None) -> None:
        self._seen[key] = captured
        self._seen.move_to_end(key)
        while len(self._seen) > self._graphs:
            self._seen.popitem(last=False)

    def _capture(self, run: Run, state: Tensor) -> _Captured:
        given = state.clone()
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # Casts that autocast keeps are freed behind its block, and the graph would read them later.
        with torch.cuda.graph(graph, pool=self._pool), _without_kept_casts(state):
            made = run(given)
        return _Captured(given, graph.replay, made)

    def _replayed(self, captured: _Captured, state: Tensor) -> Tensor:
        """Replay, after what other streams asked for is done, since all graphs share their memory."""
        stream = torch.cuda.current_stream()
        if self._last is not None:
            stream.wait_event(self._last)
        captured.given.copy_(state)
        captured.replay()
        made = captured.made.clone()
        self._last = stream.record_event()
        return made


def _can_capture(state: Tensor) -> bool:
    return state.is_cuda and not torch.cuda.is_current_stream_capturing()


def _device_of(state: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(state.device) if state.is_cuda else nullcontext()


def _precision(state: Tensor) -> tuple[Hashable, ...]:
    """All that the surroundings say of how precisely to compute."""
    kind, backends = state.device.type, torch.backends
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    return half, backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32


def _without_kept_casts(state: Tensor) -> AbstractContextManager[Any]:
    kind = state.device.type
    return torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
