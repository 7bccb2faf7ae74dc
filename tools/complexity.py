"""What the models cost: Mo & Chen's Table 2 recomputed, and the columns that compare like with like.

    python tools/complexity.py
    python tools/complexity.py iirn_x4:DEFAULT small_x4:DEFAULT --size 40 40 --hr 256 256 --repeats 5 --json -

The paper prints multiply-adds for a 40x40 input, which is LR for the super-resolution networks (160x160
comes out) and HR for the rescalers. Beside that stand the multiply-adds of both directions for one HR size,
and with --repeats what they take, in medians of rounds in which the models take turns. Bicubic counts as
nothing; the times of a super-resolution network's way down are bicubic's.

"Convolutions" are all convolutions' multiply-adds. "Counted as printed" adds one for each bias added,
activation and value pooled, which comes within 1% of the printed figures. What is printed stands beside the
paper's own network alone: weights may be those of another depth.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarking.timing import medians
from evaluate import at_least
from evaluation.report import align
from evaluation.words import one_line, write_json
from invertible_rescaling import RescalingError, create_model
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.models import AnyModel
from invertible_rescaling.models.super_resolution import SuperResolver
from provenance import commit, machine, stamp

aten = torch.ops.aten

MODELS = ("srcnn_x4", "srresnet_x4", "srgan_x4", "esrgan_x4", "edsr_x4", "irn_x4", "iirn_x4")

# Parameters and multiply-adds of Mo & Chen 2021, Table 2. For IRN and IIRN it has "K" where M is meant.
# SRGAN's 36.4M parameters are not those of the generator, which is SRResNet's: 1.518M. It may be that all of
# its training is counted: with ESRGAN's authors' discriminator for patches of 128x128 (14.50M) and VGG19's
# convolutions (20.02M) it is 36.04M, 1.0% less. That is plausible, not proven; with SRGAN's own discriminator
# as Fig. 4 of its paper has it for 96x96 (23.57M), and no VGG19, it is 25.08M.
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


def count(model: AnyModel, hr_size: tuple[int, int]) -> Complexity:
    """Count parameters, and multiply-adds of both directions on one HR image whose sides fit the scale.

    Raises:
        ShapeError: ``hr_size`` is not a multiple of the scale.
    """
    hr = _image(model, hr_size)
    with torch.no_grad():
        if isinstance(model, SuperResolver):
            lr = model.downscale(hr)
            down, up = 0, multiply_adds(lambda: model(lr))[0]
        else:
            down, (lr, z) = multiply_adds(lambda: model(hr))
            up, _ = multiply_adds(lambda: model.inverse(lr, z))
    return Complexity(hr_size, sum(p.numel() for p in model.parameters()), down, up)


def multiply_adds(run: Callable[[], Any], *, everything: bool = False) -> tuple[int, Any]:
    """Return how many multiply-adds the convolutions take during ``run()``, and its result.

    With ``everything``, biases, activations and pooled values count as one each.
    """
    with fast_kernels(False), torch.no_grad(), _Counter(everything) as counter:
        result = run()
    return counter.total, result


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by PyTorch's operations; channel attention's MLP, on one pixel, is a matrix product.

    In inference mode operations are seen before they are taken apart, by other names.
    """

    def __init__(self, everything: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.everything, self.total = everything, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        operation = function.overloadpacket
        if operation in (aten.convolution, aten.conv2d):
            self.total += out.numel() * (args[1][0].numel() + (self.everything and args[2] is not None))
        elif operation in (aten.addmm, aten.linear):
            self.total += out.numel() * (args[1].shape[1] + self.everything)
        elif self.everything and operation in (aten.relu, aten.leaky_relu):
            self.total += out.numel()
        elif self.everything and operation in (aten.mean, aten.amax):
            self.total += args[0].numel()
        return out


def _image(model: AnyModel, size: tuple[int, int]) -> Tensor:
    weight = next(model.parameters(), torch.zeros(()))
    return torch.zeros(1, model.channels, *size, device=weight.device, dtype=weight.dtype)


def cost(name: str, model: AnyModel, size: tuple[int, int], hr_size: tuple[int, int]) -> Cost:
    """One model's row, not timed.

    Raises:
        ShapeError: a size is not a multiple of the scale, or not one that the model takes.
    """
    fair = count(model, hr_size)
    with torch.no_grad():
        given = _image(model, size)
        convolutions, _ = multiply_adds(lambda: model(given))
        as_printed, _ = multiply_adds(lambda: model(given), everything=True)
    parameters, printed = printed_of(name, model)
    return Cost(
        *(name, fair.parameters, parameters, convolutions, as_printed, printed),
        *(fair.downscale, fair.upscale, None, None),
    )


def printed_of(given: str, model: AnyModel) -> tuple[float, float] | tuple[None, None]:
    """What is printed of NAME or NAME:WEIGHTS, unless the weights are of another network than NAME's."""
    name, colon, _ = given.partition(":")
    if name not in PRINTED:
        return None, None
    own = create_model(name).config if colon else model.config
    same = all(own.get(key) == value for key, value in model.config.items() if key != "latent")
    return PRINTED[name] if same else (None, None)


def measure(models: dict[str, AnyModel], hr_size: tuple[int, int], repeats: int) -> dict[str, float]:
    """Seconds of ``downscale`` and ``upscale`` of each model, which take turns."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        hr = torch.rand(1, model.channels, *hr_size)
        lr = model.downscale(hr)
        calls[f"{name} down"] = lambda model=model, hr=hr: model.downscale(hr)  # type: ignore[misc]
        calls[f"{name} up"] = lambda model=model, lr=lr: model.upscale(lr)  # type: ignore[misc]
    return medians(calls, repeats, torch.device("cpu"))


def make(given: str) -> AnyModel:
    """NAME, an untrained model, or NAME:WEIGHTS, of which only the configuration matters here.

    Raises:
        RescalingError, OSError: no such model or weights, or none that can be counted.
    """
    name, colon, weights = given.partition(":")
    model = create_model(name, weights=weights if colon else None)
    if not isinstance(model, AnyModel):
        raise ConfigError(f"a {type(model).__name__} cannot be counted; name a rescaler or a super-resolver")
    return model.eval()


@dataclass
class Table:
    """All that the program has to say at the end."""

    size: tuple[int, int]
    hr: tuple[int, int]
    repeats: int
    rows: list[Cost]
    problems: list[str]


def tabulate(names: Sequence[str], size: tuple[int, int], hr: tuple[int, int], repeats: int) -> Table:
    """Count and time the models; what goes wrong is collected, not raised, and costs no other figure."""
    table = Table(size, hr, repeats, [], [])
    models: dict[str, AnyModel] = {}
    for name in dict.fromkeys(names):
        try:
            model = make(name)
            table.rows.append(cost(name, model, size, hr))
            models[name] = model
        except (RescalingError, OSError, RuntimeError, MemoryError) as error:
            table.problems.append(f"{name}: {one_line(error)}")
    if models and repeats:
        try:
            seconds = measure(models, hr, repeats)
        except (RescalingError, RuntimeError, MemoryError) as error:
            table.problems.append(f"no times: {one_line(error)}")
        else:
            table.rows = [
                replace(row, down_s=seconds[f"{row.model} down"], up_s=seconds[f"{row.model} up"])
                for row in table.rows
            ]
    return table


def to_markdown(table: Table) -> str:
    """Parameters and multiply-adds in millions; times only where they were asked for."""
    given, hr = ("x".join(map(str, size)) for size in (table.size, table.hr))
    cells = [
        [
            *("model", "parameters, M", "parameters printed, M"),
            *(f"{given} input: convolutions, M", "counted as printed, M", "multiply-adds printed, M", "off"),
            *(f"HR {hr}: down, multiply-adds, M", "up, multiply-adds, M"),
            *(("down, ms", "up, ms") if table.repeats else ()),
        ]
    ]
    for row in table.rows:
        off = "" if row.printed is None else f"{100 * (row.as_printed / row.printed - 1):+.1f} %"
        cells.append(
            [
                *(row.model, _millions(row.parameters, 4), _millions(row.printed_parameters, 4)),
                *(_millions(row.convolutions), _millions(row.as_printed), _millions(row.printed), off),
                *(_millions(row.hr_down), _millions(row.hr_up)),
                *((_milliseconds(row.down_s), _milliseconds(row.up_s)) if table.repeats else ()),
            ]
        )
    return "\n".join(align(cells))


def to_json(table: Table) -> str:
    """The same as data, multiply-adds as numbers and times in seconds, and where they were measured."""
    environment = {
        "device": "cpu",
        "machine": machine("cpu"),
        "commit": commit(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    data = {
        "size": table.size,
        "hr": table.hr,
        "repeats": table.repeats,
        "environment": environment,
        "rows": [asdict(row) for row in table.rows],
    }
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _millions(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value / 1e6:.{digits}f}"


def _milliseconds(seconds: float | None) -> str:
    """With three significant digits, and without an exponent."""
    if not seconds:
        return "" if seconds is None else "0"
    value = float(f"{1e3 * seconds:.3g}")
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself ends with code 2 on a mistake in it."""
    parser = argparse.ArgumentParser(prog="complexity.py", description="Parameters, multiply-adds and time.")
    add = parser.add_argument
    add(
        "models",
        nargs="*",
        metavar="NAME[:WEIGHTS]",
        help="registered models, with weights the network that these belong to; those of the paper's Table 2 "
        "by default",
    )
    sides: dict[str, Any] = {"type": at_least(1), "nargs": 2, "metavar": ("H", "W")}
    add("--size", default=(40, 40), **sides, help="of the paper's input (default: 40 40)")
    add("--hr", default=(256, 256), **sides, help="of HR, where all have one (default: 256 256)")
    add("--repeats", type=at_least(0), default=0, metavar="N", help="time so many rounds; none by default")
    add("--json", metavar="FILE", help="write all figures there too; - prints them in place of the table")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 0, or 2 if anything went wrong on the way, or 130 if interrupted."""
    options = parse(argv)
    try:
        table = tabulate(options.models or MODELS, tuple(options.size), tuple(options.hr), options.repeats)
        output(table, options.json)
    except KeyboardInterrupt:
        print("complexity.py: interrupted", file=sys.stderr)
        return 130
    for problem in table.problems:
        print(f"complexity.py: {problem}", file=sys.stderr)
    return 2 if table.problems else 0


def output(table: Table, json_file: str | None) -> None:
    """Print the table or JSON; write JSON, whose place may be unwritable."""
    if json_file == "-":
        print(to_json(table), end="")
        return
    if table.rows:
        print(f"{to_markdown(table)}\n\n{stamp()}", flush=True)
    if json_file is not None:
        try:
            write_json(Path(json_file), to_json(table))
        except OSError as error:
            table.problems.append(f"cannot write --json {json_file}: {error.strerror or error}")


if __name__ == "__main__":
    sys.exit(main())
