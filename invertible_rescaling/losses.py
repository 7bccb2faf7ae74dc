"""The training objective of IRN and IIRN."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["RescalingLoss", "RescalingLossTerms", "charbonnier"]


@dataclass(frozen=True)
class RescalingLossTerms:
    """The weighted sum and its unweighted parts, each a scalar tensor."""

    total: Tensor
    reconstruction: Tensor
    guide: Tensor
    latent: Tensor


class RescalingLoss(nn.Module):
    r"""Reconstruction, LR guidance and latent matching over both directions of a rescaler.

    .. math::
        L = \lambda_r \, \overline{\sqrt{(HR - SR)^2 + \epsilon^2}}
          + \lambda_g \, \overline{(LR - \mathrm{bicubic}(HR))^2}
          + \lambda_z \, \overline{(z - z_{prior})^2}

    Bars are means over all elements, so that the weights do not depend on the patch. SR is the inverse of the
    8-bit LR (straight-through gradient) and the model's own latent; :math:`z_{prior}` is that latent. The
    guide's error is that of the mean over channels, which is near luma, and of what the channels differ by:
    ``chroma`` weighs the latter, where most of what LR carries is hidden.

    References:
        Xiao et al. 2020, *Invertible Image Rescaling*, section 3.3 (their weights 1 and scale^2 on sums are
        1 and 1 on means).

    Args:
        reconstruction, guide, latent: the three weights, 0 or more.
        epsilon: of the Charbonnier distance.
        chroma: weight of colour within the guide, 0 or more; 1 leaves it as the formula has it.
        degradation: what happens to the 8-bit LR before it is brought back, ``(lr, hr) -> (lr, hr)``, as of
            :mod:`invertible_rescaling.training.degradations`: LR as it arrives, and what should come of it.

    Raises:
        ConfigError: a negative weight, or an epsilon that is not positive.

    Example:
        >>> import torch
        >>> from invertible_rescaling import RescalingLoss, iirn_x4
        >>> model, loss = iirn_x4(blocks=(1, 1)), RescalingLoss()
        >>> terms = loss(model, torch.rand(2, 3, 32, 32))
        >>> terms.total.backward()
    """

    def __init__(
        self,
        reconstruction: float = 1.0,
        guide: float = 1.0,
        latent: float = 1.0,
        epsilon: float = 1e-3,
        chroma: float = 1.0,
        degradation: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        # Written so that NaN fails it too.
        if not (reconstruction >= 0 and guide >= 0 and latent >= 0 and epsilon > 0 and chroma >= 0):
            raise ConfigError(
                "RescalingLoss needs weights of at least 0 and epsilon above 0, got "
                f"{reconstruction=}, {guide=}, {latent=}, {epsilon=}, {chroma=}"
            )
        self.reconstruction = reconstruction
        self.guide = guide
        self.latent = latent
        self.epsilon = epsilon
        self.chroma = chroma
        self.degradation = degradation

    def forward(
        self, model: InvertibleRescaler, hr: Tensor, lr_reference: Tensor | None = None
    ) -> RescalingLossTerms:
        """Run both directions on HR ``(B, C, H, W)`` in [0, 1], sides multiples of the scale.

        Args:
            model: the rescaler to train. To train it under DistributedDataParallel, call this loss inside the
                wrapped module's forward, since DDP watches forward alone.
            hr: the patches.
            lr_reference: what LR should look like, ``(B, C, H/scale, W/scale)``; bicubic of HR by default.

        Raises:
            ShapeError, DtypeError: as the model raises them; a reference of another shape than LR.
        """
        lr, z = model(hr)
        stored = quantize(lr)
        prior = model.latent(stored)
        if self.degradation is None:
            sr, target = model.inverse(stored, prior), hr
        else:
            arrived, target = self.degradation(stored, hr)
            sr = model.inverse(arrived, model.latent(arrived))
        if lr_reference is None:
            lr_reference = bicubic_resize(hr, (lr.shape[2], lr.shape[3]))
        elif lr_reference.shape != lr.shape:
            raise ShapeError(f"the LR reference is {tuple(lr_reference.shape)} and LR {tuple(lr.shape)}")
        reconstruction = charbonnier(sr, target, self.epsilon)
        error = lr - lr_reference
        guide = error.square().mean()
        if self.chroma != 1:
            colour = error - error.mean(dim=1, keepdim=True)
            guide = guide + (self.chroma - 1) * colour.square().mean()
        latent = (z - prior).square().mean()
        total = self.reconstruction * reconstruction + self.guide * guide + self.latent * latent
        return RescalingLossTerms(total, reconstruction, guide, latent)

    def extra_repr(self) -> str:
        return f"reconstruction={self.reconstruction}, guide={self.guide}, latent={self.latent}"


def charbonnier(sr: Tensor, hr: Tensor, epsilon: float = 1e-3) -> Tensor:
    r"""The Charbonnier distance :math:`\overline{\sqrt{(HR - SR)^2 + \epsilon^2}}`, a mean over all elements.

    References:
        Charbonnier et al. 1994; Xiao et al. 2020, section 3.3.

    Shapes:
        two tensors of one shape -> a scalar, at least ``epsilon``.

    Example:
        >>> import torch
        >>> from invertible_rescaling.losses import charbonnier
        >>> charbonnier(torch.zeros(2), torch.tensor([0.0, 1.0]))
        tensor(0.5005)
    """
    return torch.sqrt((hr - sr).square() + epsilon**2).mean()
