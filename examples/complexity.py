"""What the models cost: Mo & Chen's Table 2 recomputed, and the columns that compare like with like.

    python examples/complexity.py
    python examples/complexity.py iirn_x4 irn_x4 --size 40 40 --hr 256 256 --repeats 5 --json complexity.json

The paper prints multiply-adds for a 40x40 input, which is LR for the super-resolution networks (160x160
comes out) and HR for the rescalers. Beside that stand the multiply-adds of both directions for one HR size,
and with --repeats what they take, in medians of rounds in which the models take turns. Bicubic counts as
nothing.

"Convolutions" are all convolutions' multiply-adds. "Counted as printed" adds one for each bias added,
activation and value pooled, which comes within 1% of the printed figures.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarking.timing import medians
from invertible_rescaling import ChannelAttention, RescalingError, create_model
from invertible_rescaling.checkpoint import Storable as Model
from invertible_rescaling.comparison.super_resolver import SuperResolver
from invertible_rescaling.errors import ConfigError

MODELS = ("srcnn_x4", "srresnet_x4", "srgan_x4", "esrgan_x4", "edsr_x4", "irn_x4", "iirn_x4")

# Parameters and multiply-adds of Mo & Chen 2021, Table 2. For IRN and IIRN it has "K" where M is meant.
# SRGAN's 36.4M parameters are not those of the generator, which is SRResNet's: they would have to count a
# discriminator with fully connected layers for a large input, and more, which no rescaling needs.
PRINTED = {
    "srcnn_x4": (20.1e3, 0.52e9),
    "srresnet_x4": (1.52e6, 4.07e9),
    "srgan_x4": (36.4e6, 4.07e9),
    "esrgan_x4": (16.7e6, 28.73e9),
    "edsr_x4": (1.52e6, 3.18e9),
    "irn_x4": (4.35e6, 936.28e6),
    "iirn_x4": (2.71e6, 543.09e6),
}


@dataclass(frozen=True)
class Complexity:
    """The cost of one image of ``hr_size`` (H, W)."""

    hr_size: tuple[int, int]
    parameters: int
    downscale: int
    upscale: int


@dataclass(frozen=True)
class Cost:
    """A row of the table; multiply-adds are numbers, times seconds."""

    model: str
    parameters: int
    printed_parameters: float | None
    convolutions: int
    as_printed: int
    printed: float | None
    hr_down: int
    hr_up: int
    down_s: float | None
    up_s: float | None


def count(model: Model, hr_size: tuple[int, int]) -> Complexity:
    """Count parameters, and multiply-adds of both directions on one HR image whose sides fit the scale.

    Raises:
        ShapeError: ``hr_size`` is not a multiple of the scale.
    """
    hr = _image(model, hr_size)
    with torch.no_grad():
        if isinstance(model, SuperResolver):
            lr = model.downscale(hr)
            down, up = 0, multiply_adds(model, lambda: model(lr))[0]
        else:
            down, (lr, z) = multiply_adds(model, lambda: model(hr))
            up, _ = multiply_adds(model, lambda: model.inverse(lr, z))
    return Complexity(hr_size, sum(p.numel() for p in model.parameters()), down, up)


def multiply_adds(model: nn.Module, run: Callable[[], Any], *, everything: bool = False) -> tuple[int, Any]:
    """Return how many multiply-adds the convolutions of ``model`` take during ``run()``, and its result.

    With ``everything``, biases, activations and pooled values count as one each.
    """
    counts: list[int] = []

    def of_conv(conv: nn.Module, _inputs: object, output: Tensor) -> None:
        weight: Tensor = conv.weight  # type: ignore[assignment]  # it is a Conv2d
        counts.append(output.numel() * (weight[0].numel() + (everything and conv.bias is not None)))

    def of_activation(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        counts.append(output.numel())

    def of_attention(_module: nn.Module, inputs: tuple[Tensor], _output: object) -> None:
        counts.append(2 * inputs[0].numel())  # a mean and a maximum

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                hooks.callback(module.register_forward_hook(of_conv).remove)
            elif everything and isinstance(module, nn.ReLU | nn.LeakyReLU):
                hooks.callback(module.register_forward_hook(of_activation).remove)
            elif everything and isinstance(module, ChannelAttention):
                hooks.callback(module.register_forward_hook(of_attention).remove)
        result = run()
    return sum(counts), result


def _image(model: Model, size: tuple[int, int]) -> Tensor:
    weight = next(model.parameters(), torch.zeros(()))
    return torch.zeros(1, model.channels, *size, device=weight.device, dtype=weight.dtype)


def cost(name: str, model: Model, size: tuple[int, int], hr_size: tuple[int, int]) -> Cost:
    """One model's row, not timed.

    Raises:
        ShapeError: a size is not a multiple of the scale, or not one that the model takes.
    """
    fair = count(model, hr_size)
    with torch.no_grad():
        given = _image(model, size)
        convolutions, _ = multiply_adds(model, lambda: model(given))
        as_printed, _ = multiply_adds(model, lambda: model(given), everything=True)
    parameters, printed = PRINTED.get(name, (None, None))
    return Cost(
        *(name, fair.parameters, parameters, convolutions, as_printed, printed),
        *(fair.downscale, fair.upscale, None, None),
    )


def measure(models: dict[str, Model], hr_size: tuple[int, int], repeats: int) -> dict[str, float]:
    """Seconds of ``downscale`` and ``upscale`` of each model, which take turns."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        hr = torch.rand(1, model.channels, *hr_size)
        lr = model.downscale(hr)
        calls[f"{name} down"] = lambda model=model, hr=hr: model.downscale(hr)  # type: ignore[misc]
        calls[f"{name} up"] = lambda model=model, lr=lr: model.upscale(lr)  # type: ignore[misc]
    return medians(calls, repeats, torch.device("cpu"))


def make(name: str) -> Model:
    """An untrained model, since trained ones cost the same.

    Raises:
        RescalingError: no such model, or none that can be counted.
    """
    model = create_model(name)
    if not isinstance(model, Model):
        raise ConfigError(f"{name} is a {type(model).__name__}; name a rescaler or a super-resolver")
    return model.eval()


def to_markdown(rows: Sequence[Cost], size: tuple[int, int], hr: tuple[int, int]) -> str:
    """The table; figures in millions."""
    head = (
        "model",
        "parameters, M",
        "printed",
        f"convolutions at {size[0]}x{size[1]}, M",
        "counted as printed, M",
        "printed, M",
        "off",
        f"HR {hr[0]}x{hr[1]}: down, M",
        "up, M",
        "down, ms",
        "up, ms",
    )
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        off = "" if row.printed is None else f"{100 * (row.as_printed / row.printed - 1):+.1f} %"
        cells = (
            *(row.model, _millions(row.parameters, 4), _millions(row.printed_parameters, 4)),
            *(_millions(row.convolutions), _millions(row.as_printed), _millions(row.printed), off),
            *(_millions(row.hr_down), _millions(row.hr_up)),
            *("" if s is None else f"{1e3 * s:.0f}" for s in (row.down_s, row.up_s)),
        )
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _millions(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value / 1e6:.{digits}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 0, or 2 where a model has no row or the file cannot be written."""
    parser = argparse.ArgumentParser(prog="complexity.py", description="Parameters, multiply-adds and time.")
    add = parser.add_argument
    add(
        "models",
        nargs="*",
        metavar="MODEL",
        help="registered models; those of the paper's Table 2 by default",
    )
    add("--size", type=int, nargs=2, default=(40, 40), metavar=("H", "W"), help="of the paper's input")
    add("--hr", type=int, nargs=2, default=(256, 256), metavar=("H", "W"), help="of HR, where all have one")
    add("--repeats", type=int, default=0, metavar="N", help="time so many rounds; none by default")
    add("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args(argv)
    size, hr = tuple(options.size), tuple(options.hr)
    problems: list[str] = []
    models: dict[str, Model] = {}
    rows: list[Cost] = []
    for name in dict.fromkeys(options.models or MODELS):
        try:
            model = make(name)
            rows.append(cost(name, model, size, hr))
            models[name] = model
        except (RescalingError, RuntimeError) as error:
            problems.append(str(error))
    if options.repeats > 0:
        seconds = measure(models, hr, options.repeats)
        rows = [
            replace(row, down_s=seconds[f"{row.model} down"], up_s=seconds[f"{row.model} up"]) for row in rows
        ]
    if rows:
        print(to_markdown(rows, size, hr))
    if options.json is not None:
        try:
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        except OSError as error:
            problems.append(f"cannot write --json {options.json}: {error.strerror or error}")
    for problem in problems:
        print(f"complexity.py: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
