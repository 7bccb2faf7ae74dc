"""The objective of a training step: both directions of a rescaler, a super-resolver's way up."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from invertible_rescaling.losses import RescalingLoss, charbonnier
from invertible_rescaling.models import AnyModel
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.training.config import TrainingConfig
from invertible_rescaling.training.degradations import Degradation
from invertible_rescaling.training.gan import Adversary


class Objective(nn.Module, ABC):
    """A loss of a model on HR patches ``(B, C, H, W)`` in [0, 1] and, where given, their LR.

    Returns the values of :attr:`terms`, of which the first is to be minimised, and SR where it has made one.
    """

    terms: ClassVar[tuple[str, ...]]

    @abstractmethod
    def forward(self, model: AnyModel, hr: Tensor, lr: Tensor | None) -> tuple[Tensor, Tensor | None]: ...


class BothDirections(Objective):
    """:class:`~invertible_rescaling.RescalingLoss`, of a rescaler."""

    terms = ("total", "reconstruction", "guide", "latent")

    def __init__(
        self, weights: tuple[float, float, float], chroma: float, degradation: Degradation | None
    ) -> None:
        super().__init__()
        self.loss = RescalingLoss(*weights, chroma=chroma, degradation=degradation)

    def forward(self, model: AnyModel, hr: Tensor, lr: Tensor | None) -> tuple[Tensor, Tensor | None]:
        found = self.loss(model, hr, lr)
        return torch.stack([getattr(found, name) for name in self.terms]), None


class Enlarging(Objective):
    """The Charbonnier distance of a super-resolver's SR to HR, as rescalers are trained with it, too.

    LR is bicubic, of 8 bits, where the data set brings none.
    """

    terms = ("total", "pixel")

    def forward(self, model: AnyModel, hr: Tensor, lr: Tensor | None) -> tuple[Tensor, Tensor | None]:
        sr = enlarge(model, hr, lr)
        pixel = charbonnier(sr, hr)
        return torch.stack((pixel, pixel)), sr


class EnlargingAgainst(Objective):
    """The same, weighed, with a perceptual and an adversarial term."""

    terms = ("total", "pixel", "perceptual", "adversarial")

    def __init__(self, adversary: Adversary) -> None:
        super().__init__()
        self._adversary = (adversary,)  # in a tuple: what it trains is no part of this module

    def forward(self, model: AnyModel, hr: Tensor, lr: Tensor | None) -> tuple[Tensor, Tensor | None]:
        (adversary,) = self._adversary
        sr = enlarge(model, hr, lr)
        pixel = charbonnier(sr, hr)
        perceptual, adversarial = adversary.judge(sr, hr)
        total = adversary.recipe.total(pixel, perceptual, adversarial)
        return torch.stack((total, pixel, perceptual, adversarial)), sr


def enlarge(model: AnyModel, hr: Tensor, lr: Tensor | None) -> Tensor:
    """SR of a super-resolver, not clamped."""
    small = model.downscale(hr) if lr is None else lr
    sr: Tensor = model(small.contiguous(memory_format=torch.channels_last))
    return sr


def objective_for(model: AnyModel, options: TrainingConfig, adversary: Adversary | None) -> Objective:
    """The objective that fits a model: of its kind, and with an adversary where there is one."""
    if isinstance(model, InvertibleRescaler):
        return BothDirections(options.loss_weights, options.chroma, options.degradation)
    return Enlarging() if adversary is None else EnlargingAgainst(adversary)
