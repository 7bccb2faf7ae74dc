"""What one training step computes, at which learning rate, and the average over steps."""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from invertible_rescaling.checkpoint import Storable as Model
from invertible_rescaling.images import from_uint8
from training.objectives import Objective
from training.options import Options


class TrainStep(nn.Module):
    """The loss as a module's forward, which is what DistributedDataParallel and autocast wrap."""

    def __init__(self, model: Model, objective: Objective) -> None:
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


def learning_rate(options: Options, step: int) -> float:
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

    It is that of :class:`torch.optim.swa_utils.AveragedModel`, with the names of its state, but counts on the
    CPU: that one copies its count to the GPU for every update, and waits for it.

    Args:
        model: whose weights are averaged; ``module`` is a copy of it.
        decay: at last; 0 keeps the newest weights only.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.module = copy.deepcopy(model)
        self.decay = decay
        self.count = 0

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Take in the weights of a step."""
        mine: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(model.parameters())
        if self.count == 0:
            torch._foreach_copy_(mine, theirs)
        else:
            warm = min(self.decay, (1 + self.count) / (10 + self.count)) if self.decay else 0.0
            torch._foreach_lerp_(mine, theirs, 1 - warm)
        for buffer, newest in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(newest)
        self.count += 1

    def state_dict(self) -> dict[str, Tensor]:
        """What :meth:`load_state_dict` takes."""
        weights = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        return {"n_averaged": torch.tensor(self.count), **weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        prefix = "module."
        weights = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        self.module.load_state_dict(weights)
        self.count = int(state["n_averaged"])
