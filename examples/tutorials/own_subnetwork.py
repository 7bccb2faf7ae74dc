"""A sub-network of your own
=========================

A coupling inverts whatever stands in it. Any module that keeps height and width will do.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from invertible_rescaling import InvertibleRescaler, register_subnet
from invertible_rescaling.testing import check_invertible, randomize


class LargeKernel(nn.Module):
    """A depthwise 7x7 convolution between two that mix channels."""

    receptive_radius = 3  # how far it sees: with it, the model runs in exact tiles

    def __init__(self, in_channels: int, out_channels: int, width: int = 24) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, width, 1)
        self.look = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.last = nn.Conv2d(width, out_channels, 1)
        nn.init.zeros_(self.last.weight)  # an untrained coupling is the identity

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same height and width."""
        out: Tensor = self.last(nn.functional.gelu(self.look(self.mix(x))))
        return out


# %%
# A name makes it part of the configuration that checkpoints store.

register_subnet("tutorial_large_kernel", LargeKernel)
model = InvertibleRescaler(2, blocks=4, subnet={"name": "tutorial_large_kernel", "width": 16})

# %%
# Check that the inverse holds, with random weights: an untrained coupling is the identity and proves
# nothing. The report says by how much rounding errors grow, in units of float32's epsilon.

hr = torch.rand(1, 3, 32, 32)
gains = [0.25, 0.5, 0.75, 1.0]
reports = [check_invertible(randomize(model.flow, gain), hr, tolerance=1e-2) for gain in gains]
for gain, report in zip(gains, reports, strict=True):
    print(f"gain {gain}: {report.amplification:.1f} times epsilon")

figure, axis = plt.subplots(figsize=(5, 3.2))
axis.semilogy(gains, [report.amplification for report in reports], "o-")
axis.set(xlabel="gain of the random weights", ylabel="error over epsilon")
figure.tight_layout()
