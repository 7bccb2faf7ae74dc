"""What a rescaler costs: its parameters, and the multiply-adds of its convolutions in both directions.

    python examples/complexity.py iirn_x4 irn_x4 --size 40 40

Multiply-adds are those of the convolutions, nearly all there are: the Haar steps, the
activations and the latent are left out. The papers print figures for a 40x40 image.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from invertible_rescaling import InvertibleRescaler, RescalingError, create_model
from invertible_rescaling.errors import ConfigError


@dataclass(frozen=True)
class Complexity:
    """The cost of one image of ``hr_size`` (H, W)."""

    hr_size: tuple[int, int]
    parameters: int
    downscale: int
    upscale: int


def count(model: InvertibleRescaler, hr_size: tuple[int, int]) -> Complexity:
    """Count parameters, and multiply-adds of the bijection on one HR image whose sides fit the scale.

    Raises:
        ShapeError: ``hr_size`` is not a multiple of the scale.
    """
    weight = next(model.parameters(), torch.zeros(()))
    hr = torch.zeros(1, model.channels, *hr_size, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        down, (lr, z) = multiply_adds(model, lambda: model(hr))
        up, _ = multiply_adds(model, lambda: model.inverse(lr, z))
    return Complexity(hr_size, sum(p.numel() for p in model.parameters()), down, up)


def multiply_adds(model: nn.Module, run: Callable[[], Any]) -> tuple[int, Any]:
    """Return how many multiply-adds the convolutions of ``model`` take during ``run()``, and its result."""
    counts: list[int] = []

    def note(conv: nn.Module, _inputs: object, output: Tensor) -> None:
        counts.append(output.numel() * conv.weight[0].numel())  # type: ignore[index]  # it is a Conv2d

    with watched((m for m in model.modules() if isinstance(m, nn.Conv2d)), note):
        result = run()
    return sum(counts), result


@contextmanager
def watched(modules: Iterator[nn.Module], note: Callable[..., None]) -> Iterator[None]:
    """Call ``note`` after each forward of the modules, within the block."""
    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each model; return 0, or 2 after an error."""
    parser = argparse.ArgumentParser(prog="complexity.py", description="Parameters and multiply-adds.")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="registered rescalers")
    parser.add_argument("--size", type=int, nargs=2, default=(40, 40), metavar=("H", "W"), help="of HR")
    options = parser.parse_args(argv)
    height, width = options.size
    print(f"HR {height}x{width}: multiply-adds of the convolutions")
    try:
        for name in options.models:
            model = create_model(name)
            if not isinstance(model, InvertibleRescaler):
                raise ConfigError(f"{name} is a {type(model).__name__}; name a rescaler")
            cost = count(model, (height, width))
            print(
                f"{name}: {cost.parameters:,} parameters, {cost.downscale / 1e6:.2f}M down, "
                f"{cost.upscale / 1e6:.2f}M up"
            )
    except RescalingError as error:
        print(f"complexity.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
