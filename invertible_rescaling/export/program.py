"""A direction by ``torch.export``, for any batch and size."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.export.directions import Direction, Upscale
from invertible_rescaling.layers.latents import GaussianLatent

__all__ = ["export_program"]


def export_program(direction: Direction) -> ExportedProgram:
    """Capture a direction by ``torch.export``, for any batch, height and width.

    The program takes sides of more than ``scale`` pixels for HR, and any for LR. Values are not checked to be
    in [0, 1]; LR is clamped as it is rounded. Run it under ``torch.no_grad()``: unlike the two methods, a
    program does not switch gradients off itself.

    Args:
        direction: a :class:`Downscale` or :class:`Upscale` of a model in evaluation mode.

    Raises:
        ConfigError: the model is in training mode; or its latent draws random numbers, so that no file could
            repeat what it does.

    Example:
        >>> import torch
        >>> from invertible_rescaling import linear_x2
        >>> from invertible_rescaling.export import Downscale, export_program
        >>> model, hr = linear_x2().eval(), torch.rand(1, 3, 30, 41)
        >>> program = export_program(Downscale(model))
        >>> with torch.no_grad():
        ...     torch.allclose(program.module()(hr), model.downscale(hr))
        True
    """
    refuse_what_cannot_repeat(direction)
    program = program_of(direction, direction.example(), direction.least_side)
    latent = getattr(direction.model, "latent", None) if isinstance(direction, Upscale) else None
    if latent is not None:
        refuse_noise(latent, program)
    return program


def refuse_what_cannot_repeat(direction: Direction) -> None:
    """Refuse a model in training mode, and latents that are known to draw random numbers.

    Raises:
        ConfigError: it is one.
    """
    model = direction.model
    if model.training:
        raise ConfigError(f"the {type(model).__name__} is in training mode; call model.eval() before export")
    latent = getattr(model, "latent", None) if isinstance(direction, Upscale) else None
    if isinstance(latent, GaussianLatent) and latent.std > 0:
        raise ConfigError(_random(f"GaussianLatent(std={latent.std:g})"))


def program_of(module: nn.Module, example: Tensor, least_side: int) -> ExportedProgram:
    """Capture a module of one image batch for any batch, height and width from ``least_side`` on."""
    sizes = {0: Dim("batch"), 2: Dim("height", min=least_side), 3: Dim("width", min=least_side)}
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=(sizes,), strict=False)


def refuse_noise(latent: nn.Module, program: ExportedProgram) -> None:
    """Refuse a latent whose program draws random numbers, unless it is known to make nothing of them.

    Raises:
        ConfigError: it draws.
    """
    if not isinstance(latent, GaussianLatent) and _draws(program):
        raise ConfigError(_random(type(latent).__name__))


def _draws(program: ExportedProgram) -> bool:
    """Return whether any of a program's operators draws random numbers."""
    tags = (getattr(node.target, "tags", ()) for node in program.graph.nodes)
    return any(torch.Tag.nondeterministic_seeded in found for found in tags)


def _random(latent: str) -> str:
    return (
        f"{latent} draws new noise on every call, which an exported file could not repeat; pass "
        "latent='zero' to the model's factory, which is its mean"
    )
