"""IRN as its authors' own program computes it, where their repository lies in a folder."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarking.failure import MeasurementError
from invertible_rescaling import AffineCoupling, InvertibleRescaler
from invertible_rescaling.functional import quantize

_ROLES = {"phi": "F", "eta": "G", "rho": "H"}


class OfficialRescaler:
    """The authors' network with the weights of an IRN of this library.

    Args:
        folder: a clone of github.com/pkuxmq/Invertible-Image-Rescaling.
        model: an IRN, whose weights are taken.

    Raises:
        MeasurementError: there is no such program in the folder; or what it computes is something else.
    """

    def __init__(self, folder: Path, model: InvertibleRescaler) -> None:
        self.channels = model.channels
        self.latent = model.latent
        network, subnet = _classes(folder)
        stages = int(model.scale).bit_length() - 1
        self.network: Any = network(3, 3, subnet("DBNet", "xavier"), list(model.blocks), stages)
        missing = self.network.load_state_dict(_weights(model), strict=False).missing_keys
        if any("haar" not in name for name in missing):
            raise MeasurementError(f"the program in {folder} is not IRN: it has {missing[0]}")
        self.network.eval().to(next(model.parameters()).device)
        probe = torch.rand(1, 3, 16 * model.scale, 16 * model.scale).to(next(model.parameters()).device)
        difference = (self.network(probe)[:, :3] - model(probe)[0]).abs().max()
        if difference > 1e-4:
            raise MeasurementError(f"the program in {folder} computes another LR: by {difference:.2g}")

    def downscale(self, hr: Tensor) -> Tensor:
        """HR (B, 3, H, W) to 8-bit LR, as the authors' test program does."""
        return quantize(self.network(hr)[:, : self.channels])

    def upscale(self, lr: Tensor) -> Tensor:
        """LR back to HR, with the latent drawn."""
        state = torch.cat((lr, self.latent(lr)), dim=1)
        hr: Tensor = self.network(state, rev=True)[:, : self.channels]
        return hr.clamp(0, 1)


def _classes(folder: Path) -> tuple[Any, Any]:
    others = _packages_named_models()
    sys.path.insert(0, str(folder / "codes"))
    try:
        architecture = importlib.import_module("models.modules.Inv_arch")
        constructor = importlib.import_module("models.modules.Subnet_constructor")
        return architecture.InvRescaleNet, constructor.subnet
    except (ImportError, AttributeError) as error:
        raise MeasurementError(
            f"{folder} holds no clone of github.com/pkuxmq/Invertible-Image-Rescaling: {error}"
        ) from error
    finally:
        sys.path.remove(str(folder / "codes"))
        _packages_named_models()
        sys.modules.update(others)


def _packages_named_models() -> dict[str, ModuleType]:
    """Take what is imported under that name, of which there is much in the world, out of the way."""
    names = [name for name in sys.modules if name == "models" or name.startswith("models.")]
    return {name: sys.modules.pop(name) for name in names}


def _weights(model: InvertibleRescaler) -> dict[str, Tensor]:
    """The weights under the names that the authors gave them."""
    renamed: dict[str, Tensor] = {}
    for index, layer in enumerate(model.flow):
        if not isinstance(layer, AffineCoupling):
            continue
        for role, letter in _ROLES.items():
            for name, tensor in getattr(layer, role).state_dict().items():
                kind = name.rpartition(".")[2]
                number = 5 if name.startswith("last") else int(name.split(".")[-2]) + 1
                renamed[f"operations.{index}.{letter}.conv{number}.{kind}"] = tensor
    return renamed
