"""Adversarial training of a super-resolver: a discriminator, and the features a perceptual loss compares."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, mse_loss

from invertible_rescaling.errors import first_line
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.optimizer_state import optimizer_tensors, restore_optimizer


@dataclass(frozen=True)
class Recipe:
    """How the terms are weighed, and what they are.

    Attributes:
        pixel, perceptual, adversarial: weights of the terms.
        relativistic: whether the discriminator tells if real images are more real than SR on average, instead
            of telling for each image alone.
        layers: how many modules of ``torchvision.models.vgg19().features`` make the features.
        distance: of the features.
    """

    pixel: float
    perceptual: float
    adversarial: float
    relativistic: bool
    layers: int
    distance: Callable[[Tensor, Tensor], Tensor]

    def total(self, pixel: Tensor, perceptual: Tensor, adversarial: Tensor) -> Tensor:
        """The weighted sum."""
        return self.pixel * pixel + self.perceptual * perceptual + self.adversarial * adversarial


# Ledig et al. 2017, section 2.2: VGG54 behind its activation, by mean squares and 0.006 times as large.
# Wang et al. 2018, section 3.2 and 4.1: the same features before their activation, by absolute differences.
# Not as printed: ESRGAN's pixel term is Charbonnier's, as everywhere here, and its two relativistic terms are
# averaged, where equations 1 and 2 add them. SRGAN's 0.006 was set for its authors' VGG, not torchvision's.
RECIPES = {
    "srgan": Recipe(0.0, 0.006, 1e-3, relativistic=False, layers=36, distance=mse_loss),
    "esrgan": Recipe(1e-2, 1.0, 5e-3, relativistic=True, layers=35, distance=l1_loss),
}


class Discriminator(nn.Module):
    """SRGAN's: eight 3x3 convolutions, every second with stride 2, and two linear layers.

    Features are averaged to 6x6 before the linear layers, so that it takes patches of any size; of patches of
    96x96, as in the paper, they have that size anyway. Batch statistics are those of the batch, always.

    References:
        Ledig et al. 2017, *Photo-Realistic Single Image Super-Resolution Using a GAN*, Fig. 4.

    Shapes:
        ``(B, channels, H, W) -> (B, 1)``, logits.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for times in (1, 2, 4, 8):
            for stride in (1, 2):
                layers.append(nn.Conv2d(before, times * width, 3, stride, padding=1))
                if before != channels:
                    layers.append(nn.BatchNorm2d(times * width, track_running_stats=False))
                layers.append(nn.LeakyReLU(0.2))
                before = times * width
        self.features = nn.Sequential(*layers)
        self.decide = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(36 * before, 16 * width)),
            *(nn.LeakyReLU(0.2), nn.Linear(16 * width, 1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decide(self.features(images))
        return logits


class DiscriminatorStep(nn.Module):
    """The discriminator's own loss as a module's forward, for DistributedDataParallel and autocast."""

    def __init__(self, discriminator: nn.Module, relativistic: bool) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.relativistic = relativistic

    def forward(self, hr: Tensor, sr: Tensor) -> Tensor:
        """How badly HR is taken for real and SR for fake."""
        real, fake = self.discriminator(hr), self.discriminator(sr)
        if self.relativistic:
            return (_is(real - fake.mean(), 1.0) + _is(fake - real.mean(), 0.0)) / 2
        return _is(real, 1.0) + _is(fake, 0.0)


class Features(nn.Module):
    """A network's features of images in [0, 1], which are normalised as ImageNet's are."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network((images - self.mean) / self.std)
        return features


def vgg_features(layers: int) -> Features:
    """The first ``layers`` modules of torchvision's VGG19, trained on ImageNet.

    Raises:
        OptionError: torchvision is not installed, or does not fit torch.
        OSError: the weights are not in torch's cache and cannot be fetched.
    """
    try:
        models = importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError, OSError) as error:  # as where it was built for another torch
        raise OptionError(
            f"--gan compares features of torchvision's VGG19, which cannot be imported "
            f"({first_line(error)}); install the torchvision that fits your torch"
        ) from error
    return Features(models.vgg19(weights=models.VGG19_Weights.DEFAULT).features[:layers])


class Adversary:
    """The discriminator, its optimiser and the features: all that an adversarial run has besides its model.

    Args:
        options: of the run.
        accelerator: places it, and averages gradients over the processes.
        channels: of the images.
    """

    def __init__(self, options: TrainingConfig, accelerator: Accelerator, channels: int) -> None:
        self.recipe = RECIPES[options.gan or ""]
        self._accelerator = accelerator
        self._clip = options.clip
        with accelerator.local_main_process_first():  # which fetches the weights, if need be
            self._features = vgg_features(self.recipe.layers).to(accelerator.device)
        torch.manual_seed(options.seed)
        self.discriminator = Discriminator(channels).to(accelerator.device)
        self._step, self._optimizer = accelerator.prepare(
            DiscriminatorStep(self.discriminator, self.recipe.relativistic),
            torch.optim.Adam(self.discriminator.parameters(), lr=options.lr or 0.0),
        )

    def judge(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """The perceptual and the adversarial term of a generator's loss."""
        perceptual = self.recipe.distance(self._features(sr), self._features(hr))
        with _frozen(self.discriminator):
            fake = self.discriminator(sr)
            if not self.recipe.relativistic:
                return perceptual, _is(fake, 1.0)
            real = self.discriminator(hr)
            return perceptual, (_is(real - fake.mean(), 0.0) + _is(fake - real.mean(), 1.0)) / 2

    def train(self, hr: Tensor, sr: Tensor, rate: float) -> Tensor:
        """Let the discriminator learn from a batch at a learning rate; return its loss.

        A step whose gradient is not finite is left out.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        loss: Tensor = self._step(hr, sr.detach())
        self._accelerator.backward(loss)
        norm = self._accelerator.clip_grad_norm_(self._step.parameters(), self._clip)
        if bool(torch.isfinite(norm)):
            self._optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """Return the state for :meth:`restore`."""
        weights = {f"model.{name}": tensor for name, tensor in self.discriminator.state_dict().items()}
        return weights | {
            f"adam.{name}": tensor for name, tensor in optimizer_tensors(self._optimizer).items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        weights, moments = (
            {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            for prefix in ("model.", "adam.")
        )
        self.discriminator.load_state_dict(weights)
        restore_optimizer(self._optimizer, moments)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients through a module without computing those of its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _is(logits: Tensor, real: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))
