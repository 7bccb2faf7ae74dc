"""Choices by machine: precision, compiler, and where images are kept."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from invertible_rescaling.models import AnyModel
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.patches import ImagePair

SHARE = 0.3  # of the free GPU memory that images may take unasked: DIV2K's 800 take 6.6 GB


def resolve_auto(options: TrainingConfig, device: torch.device) -> tuple[TrainingConfig, list[str]]:
    """Replace every ``auto`` that shapes the run by what it means on a device; say what is to be known of it.

    Raises:
        OptionError: ``--compile on``, and nothing can be compiled here.
    """
    said = []
    precision, compiled = options.precision, options.compile
    if precision == "auto":
        precision = "bf16" if computes_bf16(device) else "no"
    obstacle = graph_obstacle(options, precision)
    if options.graph == "on" and obstacle:
        raise OptionError(f"--graph on: {obstacle}; give --graph off")
    graphed = options.graph == "on" or (options.graph == "auto" and device.type == "cuda" and not obstacle)
    if graphed and compiled == "auto":
        compiled = "off"  # what it gains on top has to be found out by a race
    problem = None
    if compiled == "on" or (compiled == "auto" and device.type == "cuda"):
        problem = compiler_problem(device)
    if compiled == "on" and problem:
        raise OptionError(
            f"--compile on: torch.compile does not work here ({problem}); install what it lacks (Triton for "
            "a GPU, a C++ compiler for the CPU), or give --compile off"
        )
    if compiled == "auto":
        compiled = "on" if device.type == "cuda" and problem is None else "off"
        if problem:
            said.append(f"not compiled, which is slower: torch.compile does not work here ({problem})")
    return replace(options, precision=precision, compile=compiled, graph="on" if graphed else "off"), said


def graph_obstacle(options: TrainingConfig, precision: str) -> str | None:
    """Why a step cannot be one CUDA graph, in a few words; ``None`` if it can."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "several processes wait for each other within a step"
    if options.gan is not None:
        return f"--gan {options.gan} trains two networks in turn"
    if precision == "fp16":
        return "the gradient scaler of --precision fp16 decides on the host"
    if options.reversible:
        return "--reversible decides on the host what to reconstruct"
    if options.degradation is not None and not options.degradation.on_device:
        return f"--degrade {' '.join(options.degrade)} is computed by the host"
    return None


def computes_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic that is worth the precision."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def compiler_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device, in a line; ``None`` if it can. Found out by trying."""
    try:
        torch.compile(_add_one)(torch.ones(2, device=device))
    except Exception as error:  # whatever a missing or broken compiler makes torch raise
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return None


def _add_one(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def compile_model(model: AnyModel) -> AnyModel:
    """Compile every sub-network of the couplings, or the whole of a super-resolver, in place.

    Sub-networks of one shape share what is compiled, so that it takes as long for two couplings as for
    eight. Couplings keep their methods: reversible backpropagation goes through them step by step, and stores
    the activations of a layer whose methods are replaced. Each size is compiled for itself: a run has few,
    and code for any size is slower and takes longer to compile.

    Returns:
        The model.
    """
    parts: list[nn.Module] = [model]
    if isinstance(model, InvertibleRescaler):
        parts = [
            network
            for layer in model.flow.layers
            for network in layer.children()
            if any(True for _ in network.parameters())
        ]
    for part in parts:
        part.compile(dynamic=False)
    return model


def device_for_images(
    wish: str, images: Sequence[ImagePair], device: torch.device, say: Callable[[str], None]
) -> torch.device | None:
    """Choose where training images are kept: on a GPU, or ``None`` for where they are.

    Args:
        wish: ``auto``, ``cpu`` or ``device``, as --images-on says.
        images: as they were loaded.
        device: that trains.
        say: prints a line.

    Raises:
        OptionError: they are to be on a GPU and do not fit.
    """
    if device.type == "cpu" or wish == "cpu" or (wish == "auto" and device.type != "cuda"):
        return None
    needed = sum(image.hr.numel() + (image.lr.numel() if image.lr is not None else 0) for image in images)
    if device.type != "cuda":
        return device
    free = torch.cuda.mem_get_info(device)[0]
    sizes = f"{needed / 1e9:.2f} GB of images and {free / 1e9:.2f} GB of free GPU memory"
    if wish == "device" and needed > free:
        raise OptionError(f"--images-on device: {sizes}; give --images-on cpu, or fewer images")
    if wish == "auto" and needed > SHARE * free:
        say(f"images stay in main memory: {sizes}, of which they may take {SHARE:.0%} unasked")
        return None
    say(f"images on the GPU: {sizes}")
    return device
