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

# torch takes seconds to import, and help, completion and misuses at the shell do without it. So every name is
# imported when it is first asked for. Type checkers read the same of __init__.pyi, as a test does.
_NAMES = {
    "errors": ("RescalingError",),
    "layers.base": (
        "Inverse",
        "InvertibleModule",
        "InvertibleSequential",
    ),
    "layers.coupling": (
        "AdditiveCoupling",
        "AffineCoupling",
    ),
    "layers.haar": ("HaarDownsampling",),
    "layers.latents": (
        "GaussianLatent",
        "Latent",
        "WaveletLatent",
        "ZeroLatent",
    ),
    "layers.subnet_parts": ("ChannelAttention",),
    "layers.subnets": (
        "CRDB",
        "RRDB",
        "Conv",
        "DenseBlock",
    ),
    "losses": ("RescalingLoss",),
    "metrics": (
        "psnr",
        "ssim",
    ),
    "models.factories": (
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
        "small_x2",
        "small_x4",
        "small_x8",
        "srcnn_x4",
        "srgan_x4",
        "srresnet_x4",
    ),
    "models.loading": ("load_checkpoint",),
    "models.original_irn": ("load_original_irn",),
    "models.rescaler": ("InvertibleRescaler",),
    "registry": (
        "create_model",
        "list_models",
        "register_latent",
        "register_model",
        "register_subnet",
    ),
    "weights.checkpoint": ("save_checkpoint",),
}
_MODULES = frozenset(
    {
        "errors",
        "evaluation",
        "export",
        "flows",
        "functional",
        "images",
        "kernels",
        "layers",
        "losses",
        "metrics",
        "models",
        "pipeline",
        "registry",
        "testing",
        "tiling",
        "training",
        "weights",
    }
)
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _MODULES:
        found = import_module(f"{__name__}.{name}")
    elif name == "__version__":
        found = import_module(f"{__name__}._version").__version__
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found  # where it is looked for first the next time
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES, "__version__"})
