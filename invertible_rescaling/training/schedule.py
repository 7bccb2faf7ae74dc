"""A training step, its learning rate, and the average over steps."""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from invertible_rescaling.images import from_uint8
from invertible_rescaling.models import AnyModel
from invertible_rescaling.training.config import TrainingConfig
from invertible_rescaling.training.objective import Objective


class TrainStep(nn.Module):
    """The loss as a module's forward, which is what DistributedDataParallel and autocast wrap."""

    def __init__(self, model: AnyModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, hr: Tensor, lr: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the objective's terms, and SR where it makes one, for uint8 patches."""
        patches = from_uint8(hr).contiguous(memory_format=torch.channels_last)
        found: tuple[Tensor, Tensor | None] = self.objective(
            self.model, patches, None if lr is None else from_uint8(lr)
        )
        return found


def learning_rate(options: TrainingConfig, step: int) -> float:
    """The learning rate of a step: linear warm-up, then cosine to zero or halving at every fifth."""
    peak = options.lr or 0.0
    if options.steps is None:  # not settled yet, which happens within the warm-up
        return peak * (step + 1) / (options.warmup or 100)
    warmup = options.warmup or 0
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, options.steps - warmup)
    if options.schedule == "steps":
        return peak * 0.5 ** int(5 * done)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Average:
    """An exponential moving average of a model's weights, whose memory is short at first: early ones fade.

    It is that of :class:`torch.optim.swa_utils.AveragedModel`, with the names of its state, but counts and
    decides on the model's device, so that nothing waits for it and a CUDA graph can hold it.

    Args:
        model: whose weights are averaged; ``module`` is a copy of it.
        decay: at last; 0 keeps the newest weights only.
    """

    def __init__(self, model: AnyModel, decay: float) -> None:
        self.module = copy.deepcopy(model)
        device = next(iter(self.module.parameters())).device
        exact = torch.float32 if device.type == "mps" else torch.float64  # of what is computed once a step
        self.count = torch.zeros((), dtype=exact, device=device)
        self._decay = torch.full_like(self.count, decay)

    def set_decay(self, decay: float) -> None:
        """Let the average have another decay from now on."""
        self._decay.fill_(decay)

    @torch.no_grad()
    def update(self, model: AnyModel, taken: Tensor | None = None) -> None:
        """Take in the weights of a step, or, where ``taken`` is 0 in place of 1, leave all as it is."""
        warm = torch.minimum(self._decay, (1 + self.count) / (10 + self.count))
        share = torch.where(self.count == 0, 1.0, 1 - warm)
        share = (share if taken is None else share * taken).to(next(iter(model.parameters())).dtype)
        for mine, theirs in zip(self.module.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, share)
        for buffer, newest in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(newest)
        self.count += 1 if taken is None else taken

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state for :meth:`load_state_dict`."""
        weights = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        return {"n_averaged": self.count.to(torch.int64), **weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        prefix = "module."
        weights = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        self.module.load_state_dict(weights)
        self.count.fill_(int(state["n_averaged"]))
