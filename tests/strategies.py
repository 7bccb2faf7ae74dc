"""What the property tests draw: shapes, depths, seeds and dtypes, never arrays.

A case is plain data, so that a failing one is printed in full; ``build`` makes the layer and an input of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from invertible_rescaling import (
    CRDB,
    RRDB,
    AdditiveCoupling,
    AffineCoupling,
    Conv,
    DenseBlock,
    InvertibleModule,
    InvertibleRescaler,
)
from invertible_rescaling.testing import randomize

DTYPES = (torch.float32, torch.float64)
seeds = st.integers(0, 2**31 - 1)
clamps = st.floats(0.05, 1.0)


class SmallConv(nn.Module):
    """A sub-network of a user's own: it keeps height and width, and says how far it reaches."""

    receptive_radius = 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.second = nn.Conv2d(6, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


SUBNETS: dict[str, Callable[[int, int], nn.Module]] = {
    "crdb": partial(CRDB, growth=8),
    "crdb without": partial(CRDB, growth=8, dilation=1, attention=False),
    "dense": partial(DenseBlock, growth=8),
    "conv": Conv,
    "rrdb": partial(RRDB, growth=4),
    "own": SmallConv,
}


def uniform(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same values in [0, 1), up to rounding, for every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)


def uint8_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


@dataclass(frozen=True)
class CouplingCase:
    kind: type[InvertibleModule]
    channels: int
    split: int
    subnet: str
    clamp: float
    gain: float
    seed: int
    dtype: torch.dtype
    size: tuple[int, int, int]

    def build(self) -> tuple[InvertibleModule, Tensor]:
        options = {"clamp": self.clamp} if self.kind is AffineCoupling else {}
        layer = self.kind(self.channels, self.split, SUBNETS[self.subnet], **options).to(self.dtype)
        batch, height, width = self.size
        x = uniform(batch, self.channels, height, width, seed=self.seed, dtype=self.dtype)
        return randomize(layer, self.gain, self.seed), x


@st.composite
def couplings(
    draw: st.DrawFn,
    *,
    gains: Sequence[float] = (0.5, 1.0),
    dtypes: Sequence[torch.dtype] = DTYPES,
    kinds: Sequence[type[InvertibleModule]] = (AffineCoupling, AdditiveCoupling),
    max_channels: int = 16,
    max_side: int = 9,
    max_batch: int = 3,
) -> CouplingCase:
    channels = draw(st.integers(2, max_channels))
    return CouplingCase(
        kind=draw(st.sampled_from(kinds)),
        channels=channels,
        split=draw(st.integers(1, channels - 1)),
        subnet=draw(st.sampled_from(sorted(SUBNETS))),
        clamp=draw(clamps),
        gain=draw(st.sampled_from(gains)),
        seed=draw(seeds),
        dtype=draw(st.sampled_from(dtypes)),
        size=(
            draw(st.integers(1, max_batch)),
            draw(st.integers(1, max_side)),
            draw(st.integers(1, max_side)),
        ),
    )


LATENTS: dict[str, object] = {
    "zero": "zero",
    "gaussian": {"name": "gaussian", "std": 0.1, "seed": 7},
    "ratio": "wavelet",
    "difference": {"name": "wavelet", "correction": "difference"},
    "none": {"name": "wavelet", "correction": "none"},
    "db2": {"name": "wavelet", "wavelet": "db2"},
}


@dataclass(frozen=True)
class RescalerCase:
    scale: int
    channels: int
    blocks: tuple[int, ...]
    subnet: str
    latent: str
    clamp: float
    seed: int
    dtype: torch.dtype
    batch: int
    height: int  # of LR
    width: int

    def build(self) -> tuple[InvertibleRescaler, Tensor]:
        model = InvertibleRescaler(
            self.scale, self.channels, self.blocks, SUBNETS[self.subnet], LATENTS[self.latent], self.clamp
        )
        randomize(model.to(self.dtype).eval(), 0.5, self.seed)
        height, width = self.height * self.scale, self.width * self.scale
        hr = uniform(self.batch, self.channels, height, width, seed=self.seed, dtype=self.dtype)
        return model, hr


@st.composite
def rescalers(
    draw: st.DrawFn,
    *,
    dtypes: Sequence[torch.dtype] = DTYPES,
    scales: Sequence[int] = (2, 4, 8),
    max_blocks: int = 4,
    max_channels: int = 4,
    max_side: int = 3,
    max_batch: int = 3,
) -> RescalerCase:
    scale = draw(st.sampled_from(scales))
    return RescalerCase(
        scale=scale,
        channels=draw(st.integers(1, max_channels)),
        blocks=tuple(draw(st.integers(0, max_blocks)) for _ in range(scale.bit_length() - 1)),
        subnet=draw(st.sampled_from(sorted(SUBNETS))),
        latent=draw(st.sampled_from(sorted(LATENTS))),
        clamp=draw(clamps),
        seed=draw(seeds),
        dtype=draw(st.sampled_from(dtypes)),
        batch=draw(st.integers(1, max_batch)),
        height=draw(st.integers(1, max_side)),
        width=draw(st.integers(1, max_side)),
    )
