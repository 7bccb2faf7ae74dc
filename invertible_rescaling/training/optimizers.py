"""The optimiser of a run: SOAP, Adam, or Adam in a fixed basis."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invertible_rescaling.layers.coupling import AffineCoupling
from invertible_rescaling.training.config import TrainingConfig
from invertible_rescaling.training.soap import SOAP, Bases, is_kernel

REFRESH_EVERY = 10  # steps from one refreshed basis to the next; the first follows the second step
_OTHERS = 1 / 3  # the rate of biases and 1x1 kernels, over that of kernels
_OTHERS_BETAS = (0.9, 0.99)


def make_optimizer(model: nn.Module, options: TrainingConfig, *, on_gpu: bool) -> torch.optim.Optimizer:
    """Make the optimiser that the options name, which are settled."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate: Any = options.lr
    if options.optimizer == "adam":
        betas = (0.9, options.beta2)
        return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True, capturable=on_gpu)
    kernels = [parameter for parameter in parameters if is_kernel(parameter)]
    others = [parameter for parameter in parameters if not is_kernel(parameter)]
    groups: list[dict[str, Any]] = [
        {"params": kernels, "share": 1.0},
        {"params": others, "share": _OTHERS, "betas": _OTHERS_BETAS},
    ]
    groups = [group for group in groups if group["params"]]
    return SOAP(groups, lr=rate, fixed=fixed_bases(model) if options.optimizer == "adam-dct" else None)


def set_rate(optimizer: Any, rate: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optimizer.param_groups:
        # In float32, as a tensor on a GPU holds it, so that both ways come to the same bits.
        wanted = float(np.float32(rate * group.get("share", 1.0)))
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(wanted)
        else:
            group["lr"] = wanted


def refresh_if_due(optimizer: Any, step: int) -> None:
    """Let SOAP refresh its bases after the second step and every tenth from there."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    if isinstance(inner, SOAP) and step % REFRESH_EVERY == 2:
        inner.refresh()


def fixed_bases(model: nn.Module) -> dict[Tensor, Bases]:
    """For every kernel the 3x3 cosine transform of its taps and the opponent colours of its channels.

    Colours are the channels of an image or of a sub-band: those that a coupling's network reads and makes,
    three by three, as :class:`~invertible_rescaling.HaarDownsampling` orders them.
    """
    bases: dict[Tensor, Bases] = {
        kernel: _bases(kernel, 0, 0) for kernel in filter(is_kernel, model.parameters())
    }  # of what is no coupling's, taps alone
    for network in _networks(model):
        kernels = [parameter for parameter in network.parameters() if is_kernel(parameter)]
        for kernel in kernels:
            last = kernel is kernels[-1]
            bases[kernel] = _bases(kernel, kernel.shape[0] if last else 0, kernels[0].shape[1])
    return bases


def _networks(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(module, AffineCoupling):
            yield from (module.phi, module.rho, module.eta)


def _bases(kernel: Tensor, colours_out: int, colours_in: int) -> Bases:
    outs, ins, height, width = kernel.shape
    taps = torch.kron(_cosines(height), _cosines(width))
    bases = _opponent(outs, colours_out), _opponent(ins, min(colours_in, ins)), taps
    first, second, third = (basis.to(kernel) for basis in bases)
    return first, second, third


def _cosines(size: int) -> Tensor:
    """The orthonormal cosine transform, a column a frequency."""
    place, frequency = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    basis: Tensor = torch.cos(torch.pi * (place + 0.5) * frequency / size)
    norm: Tensor = basis.norm(dim=0)
    return basis / norm


def _opponent(channels: int, colours: int) -> Tensor:
    """Luma, red against blue and green against both, for the first ``colours`` channels; 1 for the rest."""
    basis = torch.eye(channels)
    for first in range(0, colours - colours % 3, 3):
        basis[first : first + 3, first : first + 3] = _cosines(3)
    return basis
