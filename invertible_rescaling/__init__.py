"""Invertible image rescaling: shrink a picture so that it can be brought back.

Example:
    >>> import torch
    >>> from invertible_rescaling import iirn_x4
    >>> model = iirn_x4().eval()
    >>> hr = torch.rand(1, 3, 30, 41)
    >>> lr = model.downscale(hr)
    >>> model.upscale(lr, size=(30, 41)).shape
    torch.Size([1, 3, 30, 41])
"""

from invertible_rescaling import _process  # noqa: F401  # first, to count what the imports below take

# isort: split
from importlib import import_module
from typing import Any

from invertible_rescaling.errors import RescalingError
from invertible_rescaling.layers.base import Inverse, InvertibleModule, InvertibleSequential
from invertible_rescaling.layers.coupling import AdditiveCoupling, AffineCoupling
from invertible_rescaling.layers.haar import HaarDownsampling
from invertible_rescaling.layers.latents import GaussianLatent, Latent, WaveletLatent, ZeroLatent
from invertible_rescaling.layers.subnet_parts import ChannelAttention
from invertible_rescaling.layers.subnets import CRDB, RRDB, Conv, DenseBlock
from invertible_rescaling.losses import RescalingLoss
from invertible_rescaling.metrics import psnr, ssim
from invertible_rescaling.models.factories import (
    edsr_x4,
    esrgan_x4,
    iirn_x2,
    iirn_x4,
    iirn_x8,
    irn_x2,
    irn_x4,
    irn_x8,
    linear_x2,
    linear_x4,
    linear_x8,
    small_x2,
    small_x4,
    small_x8,
    srcnn_x4,
    srgan_x4,
    srresnet_x4,
)
from invertible_rescaling.models.loading import load_checkpoint
from invertible_rescaling.models.original_irn import load_original_irn
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.registry import (
    create_model,
    list_models,
    register_latent,
    register_model,
    register_subnet,
)
from invertible_rescaling.weights.checkpoint import save_checkpoint

__all__ = [
    "CRDB",
    "RRDB",
    "AdditiveCoupling",
    "AffineCoupling",
    "ChannelAttention",
    "Conv",
    "DenseBlock",
    "GaussianLatent",
    "HaarDownsampling",
    "Inverse",
    "InvertibleModule",
    "InvertibleRescaler",
    "InvertibleSequential",
    "Latent",
    "RescalingError",
    "RescalingLoss",
    "WaveletLatent",
    "ZeroLatent",
    "create_model",
    "edsr_x4",
    "esrgan_x4",
    "iirn_x2",
    "iirn_x4",
    "iirn_x8",
    "irn_x2",
    "irn_x4",
    "irn_x8",
    "linear_x2",
    "linear_x4",
    "linear_x8",
    "list_models",
    "load_checkpoint",
    "load_original_irn",
    "psnr",
    "register_latent",
    "register_model",
    "register_subnet",
    "save_checkpoint",
    "small_x2",
    "small_x4",
    "small_x8",
    "srcnn_x4",
    "srgan_x4",
    "srresnet_x4",
    "ssim",
]

__version__: str  # read when it is asked for: what reads it takes as long as all else here

_LATER = frozenset({"evaluation", "export", "flows", "images", "testing", "tiling", "training"})


def __getattr__(name: str) -> Any:
    """Import the modules that the package itself does without when they are asked for."""
    if name in _LATER:
        return import_module(f"{__name__}.{name}")
    if name == "__version__":
        return import_module(f"{__name__}._version").__version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
