"""A normalising flow
==================

The same couplings, with their log-determinants, are a normalising flow: here one that learns the density of
two moons, as a distribution of PyTorch.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TransformedDistribution

from invertible_rescaling import AffineCoupling, InvertibleSequential
from invertible_rescaling.flows import FlowTransform

# %%
# Points are images of one pixel with two channels. Couplings take turns in which channel they change.


class Perceptron(nn.Sequential):
    """Two hidden layers at every pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 32, 1),
            nn.Tanh(),
            nn.Conv2d(32, 32, 1),
            nn.Tanh(),
            nn.Conv2d(32, out_channels, 1),
        )


torch.manual_seed(0)
flow = InvertibleSequential(*(AffineCoupling(2, 1, Perceptron, clamp=2.0) for _ in range(6)))
base = Independent(Normal(torch.zeros(2, 1, 1), 1.0), 3)
density = TransformedDistribution(base, [FlowTransform(flow).inv])


def moons(count: int) -> Tensor:
    """Two half circles with a little noise, (count, 2, 1, 1)."""
    angle = torch.pi * torch.rand(count)
    upper = torch.rand(count) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return (torch.stack((x, y), 1) + 0.07 * torch.randn(count, 2)).reshape(count, 2, 1, 1)


# %%
# Maximise the likelihood:

optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
for step in range(601):
    loss = -density.log_prob(moons(256)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 150 == 0:
        print(f"step {step}: {loss.item():.3f} nats")

# %%
# The density over the plane, and points drawn from it:

with torch.inference_mode():
    y, x = torch.meshgrid(torch.linspace(-1.2, 1.7, 150), torch.linspace(-1.8, 2.8, 200), indexing="ij")
    grid = torch.stack((x, y), -1).reshape(-1, 2, 1, 1)
    likelihood = density.log_prob(grid).exp().reshape(x.shape)
    drawn = density.sample((800,)).reshape(-1, 2)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
axes[0].imshow(likelihood.numpy(), origin="lower", extent=(-1.8, 2.8, -1.2, 1.7), cmap="magma")
axes[1].scatter(*drawn.T.numpy(), s=4)
axes[1].set(xlim=(-1.8, 2.8), ylim=(-1.2, 1.7))
figure.tight_layout()
