"""Engines by name, and the fastest of them."""

import hashlib
import json
import os
import statistics
import time
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from invertible_rescaling._process import processor_here
from invertible_rescaling.engines.cuda_graphs import CudaGraphs
from invertible_rescaling.engines.graphs import GraphEngine, OnnxRuntime, OpenVino
from invertible_rescaling.errors import RescalingError, UnknownNameError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.models.engine import FlowEngine
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["create_engine", "fastest_engine", "list_engines"]

_PROBES = {"small": 64, "large": 256}  # HR pixels a side, of what stands for pictures up to and above 128x128
_SMALL = 128 * 128
_GRAPHS: dict[str, type[GraphEngine]] = {engine.name: engine for engine in (OnnxRuntime, OpenVino)}


def list_engines(*, installed: bool = False) -> list[str]:
    """The names that :func:`create_engine` takes.

    Args:
        installed: leave out those that need a package or a device that is not here.

    Example:
        >>> from invertible_rescaling.engines import list_engines
        >>> list_engines()
        ['torch', 'cudagraphs', 'onnxruntime', 'openvino']
    """
    names = ["torch"]
    if not installed or torch.cuda.is_available():
        names.append("cudagraphs")
    return names + [
        name
        for name, engine in _GRAPHS.items()
        if not installed or all(find_spec(package) is not None for package in engine.needs)
    ]


def create_engine(name: str, model: InvertibleRescaler, *, threads: int | None = None) -> FlowEngine | None:
    """Make the engine of a name for a model, for its method ``with_engine``.

    Args:
        name: ``"torch"`` (``None``: PyTorch's operations), ``"cudagraphs"``, ``"onnxruntime"`` or
            ``"openvino"``.
        model: whose flow it is to run.
        threads: of the engines for CPUs; as many as PyTorch has by default.

    Raises:
        UnknownNameError: there is no such engine.
        ConfigError, DtypeError, MissingDependencyError: as for the engine.

    Example:
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.engines import create_engine
        >>> model = iirn_x4(blocks=1).eval()
        >>> fast = model.with_engine(create_engine("cudagraphs", model))
    """
    if name == "torch":
        return None
    if name == "cudagraphs":
        return CudaGraphs(model)
    if name not in _GRAPHS:
        raise UnknownNameError(f"there is no engine {name!r}; there are {', '.join(list_engines())}")
    return _GRAPHS[name](model, threads=threads)


def fastest_engine(model: InvertibleRescaler, size: tuple[int, int], *, cache: Path | None = None) -> str:
    """Return the name of the engine that is fastest here for a model and pictures of about a size.

    The first call measures all that are installed and take the model, both directions on a random picture,
    for some seconds. What it finds is kept in a file, for these weights, this kind of size (up to 128x128,
    and above), number of threads, processor and versions of the engines.

    Args:
        model: with weights, in evaluation mode.
        size: (H, W) of HR.
        cache: the file; ``engines.json`` in ``invertible_rescaling`` below ``$XDG_CACHE_HOME`` or
            ``~/.cache`` by default. One that cannot be read or written costs a measurement.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from invertible_rescaling import linear_x4
        >>> from invertible_rescaling.engines import fastest_engine, list_engines
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fastest_engine(linear_x4().eval(), (64, 64), cache=Path(folder, "e.json")) in list_engines()
        True
    """
    kind = "small" if size[0] * size[1] <= _SMALL else "large"
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    on_gpu = device.type == "cuda"
    names = [n for n in list_engines(installed=True) if n == "torch" or (n == "cudagraphs") == on_gpu]
    key = f"{_hash_of(model)} {kind} {_surroundings(device, names)}"
    cache = cache or _default_cache()
    known = _read(cache)
    if known.get(key) not in names:
        known[key] = _measure(model, names, _PROBES[kind] - _PROBES[kind] % model.scale, device)
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, json.dumps(known, indent=1).encode())
    return known[key]


@torch.no_grad()
def _measure(model: InvertibleRescaler, names: list[str], side: int, device: torch.device) -> str:
    """The engine with the least time there and back, the median of three rounds in which all take turns."""
    variants: dict[str, InvertibleRescaler] = {}
    for name in names:
        with suppress(RescalingError):  # not for this model
            variants[name] = model.with_engine(create_engine(name, model))
    hr = torch.rand(1, model.channels, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    lr = model.downscale(hr)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(5):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant.downscale(hr)
            made = variant.upscale(lr)
            if made.is_cuda:
                torch.cuda.synchronize(device)
            if round_ > 1:  # the first call compiles, and a CUDA graph is captured by the second
                seconds[name].append(time.perf_counter() - start)
    return min(variants, key=lambda name: statistics.median(seconds[name]))


def _hash_of(model: InvertibleRescaler) -> str:
    """Of the structure and the weights."""
    found = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def _surroundings(device: torch.device, names: list[str]) -> str:
    """What a measurement holds for beside the model."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_here()
    packages = ["torch", *(name for name in names if name in _GRAPHS)]
    versions = " ".join(f"{package} {version(package)}" for package in packages)
    return f"{where}, {torch.get_num_threads()} threads, {versions}"


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "invertible_rescaling" / "engines.json"


def _read(cache: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        known = json.loads(cache.read_text())
        if isinstance(known, dict):
            return known
    return {}
