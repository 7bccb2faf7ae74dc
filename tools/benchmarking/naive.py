"""The same networks as one would write them down: NCHW, concatenation, no kernels of the library."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertible_rescaling import CRDB, AffineCoupling, HaarDownsampling, InvertibleRescaler
from invertible_rescaling.layers.subnet_parts import Conv3x3


class NaiveRescaler(nn.Module):
    """A rescaler with the weights of another; ``forward`` and ``inverse`` are those of the bijection."""

    def __init__(self, model: InvertibleRescaler) -> None:
        super().__init__()
        self.channels = model.channels
        self.latent = model.latent
        self.steps = nn.ModuleList(
            _NaiveHaar() if isinstance(layer, HaarDownsampling) else _NaiveCoupling(layer)
            for layer in model.flow
        )

    def forward(self, hr: Tensor) -> tuple[Tensor, Tensor]:
        for step in self.steps:
            hr = step(hr)
        return hr[:, : self.channels], hr[:, self.channels :]

    def inverse(self, lr: Tensor, z: Tensor) -> Tensor:
        state = torch.cat((lr, z), dim=1)
        for step in list(self.steps)[::-1]:
            state = step.inverse(state)  # type: ignore[operator]  # it is one of the two below
        return state


class _NaiveHaar(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
        c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
        return torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), dim=1) / 4

    def inverse(self, y: Tensor) -> Tensor:
        low, across, down, both = y.chunk(4, dim=1)
        out = y.new_empty((y.shape[0], low.shape[1], 2 * y.shape[2], 2 * y.shape[3]))
        out[..., 0::2, 0::2] = low + across + down + both
        out[..., 0::2, 1::2] = low - across + down - both
        out[..., 1::2, 0::2] = low + across - down - both
        out[..., 1::2, 1::2] = low - across - down + both
        return out


class _NaiveCoupling(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        assert isinstance(layer, AffineCoupling)
        self.split, self.clamp = layer.split, layer.clamp
        self.phi, self.rho, self.eta = (_NaiveSubnet(n) for n in (layer.phi, layer.rho, layer.eta))

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x[:, : self.split], x[:, self.split :]
        y1 = x1 + self.phi(x2)
        s = self.clamp * (2 * torch.sigmoid(self.rho(y1)) - 1)
        return torch.cat((y1, x2 * torch.exp(s) + self.eta(y1)), dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        y1, y2 = y[:, : self.split], y[:, self.split :]
        s = self.clamp * (2 * torch.sigmoid(self.rho(y1)) - 1)
        x2 = (y2 - self.eta(y1)) / torch.exp(s)
        return torch.cat((y1 - self.phi(x2), x2), dim=1)


class _NaiveSubnet(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        hidden: Any = network.features.convs  # type: ignore[union-attr]
        self.convs = nn.ModuleList(map(_copy, hidden))
        self.mlp = network.attention.mlp if isinstance(network, CRDB) and network.attention else None
        self.last = _copy(network.last)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = torch.cat((x, F.leaky_relu(conv(x), 0.2)), dim=1)
        if self.mlp is not None:
            pooled = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
            x = x * torch.sigmoid(self.mlp(pooled[0]) + self.mlp(pooled[1]))
        out: Tensor = self.last(x)
        return out


def _copy(conv: Conv3x3) -> nn.Conv2d:
    filters, channels = conv.weight.shape[:2]
    other = nn.Conv2d(channels, filters, 3, padding=conv.dilation, dilation=conv.dilation)
    other.load_state_dict(conv.state_dict())
    return other.to(conv.weight.device)
