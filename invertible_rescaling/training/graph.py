"""A training step that the host never waits for, so that a GPU can replay it as one CUDA graph."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from invertible_rescaling.training.optimizers import set_rate
from invertible_rescaling.training.schedule import Average

EAGER_STEPS = 3  # before the capture: they fill caches, make the optimiser's state, and count

Loss = Callable[[Tensor, Tensor | None], Tensor]


class DeviceStep:
    """Loss, backward pass, clipping, optimiser and average, with every decision made on the device.

    A step whose gradient is not finite changes nothing, as in the eager loop, which asks on the host. On a
    GPU the first steps run as they are, on a stream of their own; then the step is captured and replayed. On
    other devices it always runs as it is, and gives the eager loop's results to the last bit.

    Args:
        loss: of uint8 HR and LR patches; its first entry is minimised.
        parameters: of the model, whose gradients are clipped together.
        optimizer: bare, with a tensor for its rate; it must honour ``found_inf``.
        average: of the model.
        model: that is averaged.
        clip: largest norm of the gradient.

    After a call :attr:`terms` and :attr:`norm` hold that step's loss and gradient norm until the next, and
    :attr:`skipped` how many steps in a row were not finite, all on the device.
    """

    def __init__(
        self,
        loss: Loss,
        parameters: Iterable[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: Average,
        model: Any,
        clip: float,
    ) -> None:
        self._loss, self.optimizer, self._average, self._model = loss, optimizer, average, model
        self._parameters, self._clip = list(parameters), clip
        device = self._parameters[0].device
        self.skipped = torch.zeros((), device=device)
        self.terms = self.norm = torch.zeros((), device=device)
        self._hr: Tensor | None = None
        self._lr: Tensor | None = None
        self._made = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._side: Any = None
        if device.type == "cuda":
            self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)

    def __call__(self, hr: Tensor, lr: Tensor | None, rate: float) -> None:
        """Make one step on a batch, at a rate; return without waiting for it.

        Raises:
            RuntimeError: the step cannot be captured; the batch was not trained on.
        """
        self._take(hr, lr)
        set_rate(self.optimizer, rate)
        if self._graph is not None:
            self._graph.replay()
        elif self._side is None:
            self._body()
        elif self._made < EAGER_STEPS:
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side), _fastest_convolutions():
                self._body()
            torch.cuda.current_stream().wait_stream(self._side)
        else:
            graph = torch.cuda.CUDAGraph()
            with _fastest_convolutions(), torch.cuda.graph(graph):
                self._body()
            self._graph = graph
            graph.replay()
        self._made += 1

    def _take(self, hr: Tensor, lr: Tensor | None) -> None:
        """Put a batch where the graph looks for it."""
        if self._hr is None:
            self._hr, self._lr = torch.empty_like(hr), None if lr is None else torch.empty_like(lr)
        self._hr.copy_(hr, non_blocking=True)
        if self._lr is not None and lr is not None:
            self._lr.copy_(lr, non_blocking=True)

    def _body(self) -> None:
        if self._hr is None:
            raise RuntimeError("there is no batch yet")
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._loss(self._hr, self._lr)
        torch.autograd.backward(terms[0])
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        lost = (~torch.isfinite(norm)).to(self.skipped.dtype)
        self.optimizer.found_inf = lost  # type: ignore[attr-defined]  # torch's fused ones look for it
        # What the optimiser begins with must be a gradient; later it is left to the device whether one is.
        if self.optimizer.state or bool(torch.isfinite(norm)):
            self.optimizer.step()
        self._average.update(self._model, taken=1 - lost)
        self.skipped.add_(1).mul_(lost)
        self.terms, self.norm = terms.detach(), norm


def _fastest_convolutions() -> AbstractContextManager[None]:
    """Let cuDNN try its algorithms and keep the fastest, unless it is to be deterministic."""
    cudnn: Any = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=not torch.are_deterministic_algorithms_enabled(),
        deterministic=cudnn.deterministic,
        allow_tf32=cudnn.allow_tf32,
    )
    return flags
