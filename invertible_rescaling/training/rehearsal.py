"""Trials of a machine before its minutes are spent: gradients, the step as a graph, ways to run it."""

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator

from invertible_rescaling.errors import RescalingError
from invertible_rescaling.losses import RescalingLoss
from invertible_rescaling.models import AnyModel
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.config import TrainingConfig
from invertible_rescaling.training.device import compiler_problem
from invertible_rescaling.training.patches import PatchSampler
from invertible_rescaling.training.run import Run

TOLERANCES = {"no": 1e-3, "bf16": 5e-2, "fp16": 5e-2}  # of the gradient's norm; TensorFloat32 counts as "no"
_STEPS, _TIMED = 6, 12  # of the comparison, and of each way that is raced
Say = Callable[[str], None]


class RehearsalError(RescalingError, RuntimeError):
    """A machine computes something else than it should."""


def check_gradients(model: AnyModel, precision: str, device: torch.device, say: Say) -> None:
    """Compare a step's gradient on a device with float64's on the CPU, for one coupling a stage.

    Raises:
        RehearsalError: they differ by more than the precision explains.
    """
    if not isinstance(model, InvertibleRescaler):
        return
    small = InvertibleRescaler(**(model.config | {"blocks": 1}))
    small.latent = copy.deepcopy(model.latent)
    small = randomize(small, 0.5)
    loss, side = RescalingLoss(1, 4, 0), 8 * model.scale
    # LR is not rounded here: values on either side of a step would differ by precision alone.
    hr = torch.rand(2, model.channels, side, side, generator=torch.Generator().manual_seed(0))

    def gradient(network: InvertibleRescaler, patches: torch.Tensor) -> torch.Tensor:
        network.zero_grad()
        torch.manual_seed(0)
        lr, z = network(patches)
        sr = network.inverse(lr, z * 0.5)
        (loss.reconstruction * (sr - patches).square().mean() + loss.guide * lr.square().mean()).backward()
        found = [p.grad.detach().double().cpu().flatten() for p in network.parameters() if p.grad is not None]
        return torch.cat(found)

    wanted = gradient(copy.deepcopy(small).double(), hr.double())
    here = small.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        found = gradient(here, hr.to(device).contiguous(memory_format=torch.channels_last))
    off = float((found - wanted).norm() / wanted.norm())
    say(f"gradients against float64: off by {off:.1e} of their norm (allowed: {TOLERANCES[precision]:.0e})")
    if not off <= TOLERANCES[precision]:
        raise RehearsalError(
            f"gradients on {device} at precision {precision} are off by {off:.1e} of their norm, more than "
            f"{TOLERANCES[precision]:.0e}; try --precision no, or another machine"
        )


def check_graph(
    options: TrainingConfig, accelerator: Accelerator, model: AnyModel, sampler: PatchSampler, say: Say
) -> None:
    """Compare the losses of a few steps as a graph with those of the eager loop, and how far weights go.

    The rate is a hundredth of what was asked for: the first steps of an optimiser go by the signs of
    gradients, noise included, and at the full rate rounding alone parts the losses by percents.

    Raises:
        RehearsalError: they part.
    """
    if options.graph != "on":
        return
    losses, ways = [], []
    for graph in ("on", "off"):
        slowly = replace(options, graph=graph, lr=0.01 * (options.lr or 0.0))
        trainer = _trainer(slowly, accelerator, model, sampler)
        before = [weight.detach().clone() for weight in trainer.model.parameters()]
        losses.append([float(trainer.train_one()[0][0]) for _ in range(_STEPS)])
        moved = [a.detach() - b for a, b in zip(trainer.model.parameters(), before, strict=True)]
        ways.append(float(torch.stack([change.norm() for change in moved]).norm()))
    off = max(abs(a - b) / abs(b) for a, b in zip(*losses, strict=True))
    far = abs(ways[0] / ways[1] - 1) if ways[1] else math.inf
    say(
        f"the step as one graph: losses of {_STEPS} steps are off by {off:.1e} from the eager ones, and "
        f"weights went as far but for {far:.1e}"
    )
    if not off <= 1e-2 or not far <= 0.1:
        parts = f"losses by {off:.1e}, ways by {far:.1e}"
        raise RehearsalError(f"the step as one graph parts from the eager one ({parts}); give --graph off")


def race(
    options: TrainingConfig, accelerator: Accelerator, model: AnyModel, sampler: PatchSampler, say: Say
) -> TrainingConfig:
    """Time the ways to run a step, print them, and return the options of the fastest."""
    ways = {"eager" if options.compile == "off" else "compiled": options}
    if options.graph == "on":
        ways = {"one graph": options, "eager": replace(options, graph="off")}
        if accelerator.device.type == "cuda" and compiler_problem(accelerator.device) is None:
            ways["one graph of compiled networks"] = replace(options, compile="on")
    seconds = {}
    for name, chosen in ways.items():
        trainer = _trainer(chosen, accelerator, model, sampler)
        laps = []
        for _ in range(_TIMED):
            before = time.monotonic()
            trainer.train_one()
            if accelerator.device.type != "cpu":
                torch.accelerator.synchronize()
            laps.append(time.monotonic() - before)
        seconds[name] = statistics.median(laps[_TIMED // 2 :])
        pixels = (options.batch_size or 0) * (options.patch or 0) ** 2
        rate = pixels / seconds[name] / 1e6
        say(f"{name}: {1000 * seconds[name]:.1f} ms a step, {rate:.2f} megapixels a second")
    fastest = min(seconds, key=lambda name: seconds.get(name, math.inf))
    if len(ways) > 1:
        say(f"training with: {fastest}")
    return ways[fastest]


def _trainer(
    options: TrainingConfig, accelerator: Accelerator, model: AnyModel, sampler: PatchSampler
) -> Run:
    """A run on a copy of the model that writes nothing."""
    accelerator.free_memory()
    whole = options if options.steps is not None else replace(options, warmup=100, ema=0.9)
    return Run(whole, accelerator, copy.deepcopy(model), sampler, [], lambda line: None)
