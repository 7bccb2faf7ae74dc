"""A sub-network of one's own in an invertible rescaler: registered, checked, trained, stored and loaded.

    python examples/own_subnet.py

Any module that keeps height and width will do: couplings need no inverse of it.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from invertible_rescaling import (
    InvertibleRescaler,
    RescalingLoss,
    load_checkpoint,
    register_subnet,
    save_checkpoint,
)
from invertible_rescaling.testing import check_invertible, randomize


class Bottleneck(nn.Module):
    """A depthwise 5x5 convolution between two that mix channels."""

    receptive_radius = 2  # pixels to each side that the output depends on: lets the model run in exact tiles

    def __init__(self, in_channels: int, out_channels: int, width: int = 32) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, width, 1)
        self.look = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.out = nn.Conv2d(width, out_channels, 1)
        nn.init.zeros_(self.out.weight)  # an untrained coupling is the identity
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(nn.functional.gelu(self.look(self.mix(x))))
        return out


def main() -> None:
    """Run the example."""
    register_subnet("bottleneck", Bottleneck)  # the name that checkpoints store
    model = InvertibleRescaler(2, blocks=2, subnet={"name": "bottleneck", "width": 16})

    # With random weights, since an untrained model proves nothing.
    check_invertible(randomize(model.flow, 0.5), torch.rand(1, 3, 16, 16), tolerance=1e-4)

    loss, optimizer = RescalingLoss(), torch.optim.Adam(model.parameters(), lr=1e-3)
    hr = torch.rand(4, 3, 32, 32)
    for step in range(5):
        optimizer.zero_grad()
        total = loss(model, hr).total
        total.backward()
        optimizer.step()
        print(f"step {step}: loss {total.item():.4f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.safetensors")
        save_checkpoint(model, path)
        print("loaded:", load_checkpoint(path).config["subnet"])


if __name__ == "__main__":
    main()
