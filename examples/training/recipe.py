"""What one training step computes, at which learning rate, and the average over steps."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from invertible_rescaling import InvertibleRescaler, RescalingLoss
from invertible_rescaling.images import from_uint8
from training.options import Options

TERMS = ("total", "reconstruction", "guide", "latent")


class TrainStep(nn.Module):
    """The loss as a module's forward, which is what DistributedDataParallel and autocast wrap."""

    def __init__(self, model: InvertibleRescaler, loss: RescalingLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, hr: Tensor, lr: Tensor | None) -> Tensor:
        """Return the terms of :data:`TERMS` for uint8 patches."""
        patches = from_uint8(hr).contiguous(memory_format=torch.channels_last)
        terms = self.loss(self.model, patches, None if lr is None else from_uint8(lr))
        return torch.stack([getattr(terms, name) for name in TERMS])


def learning_rate(options: Options, step: int) -> float:
    """The learning rate of a step: linear warm-up, then cosine to zero or halving at every fifth."""
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, options.steps - options.warmup)
    if options.schedule == "steps":
        return options.lr * 0.5 ** int(5 * done)
    return options.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def averaged(model: InvertibleRescaler, decay: float) -> AveragedModel:
    """An exponential moving average whose memory is short at first, so that early weights fade."""
    make_update: Any = get_ema_multi_avg_fn

    def update(averages: Any, current: Any, count: Any) -> None:
        done = int(average.n_averaged)  # on the CPU, where reading `count` would wait for the GPU
        warm = min(decay, (1 + done) / (10 + done)) if decay else 0.0
        make_update(warm)(averages, current, count)

    average = AveragedModel(model, multi_avg_fn=update)
    return average
