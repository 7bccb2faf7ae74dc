"""Time and memory of a training step: naive, plain, checkpointed and reversible."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from benchmarking.children import in_a_process
from benchmarking.naive import NaiveRescaler
from benchmarking.options import Options
from benchmarking.timing import PeakMemory, limit_memory, medians
from invertible_rescaling import RescalingLoss, create_model
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.config import Optimizer, TrainingConfig
from invertible_rescaling.training.optimizers import REFRESH_EVERY, make_optimizer, refresh_if_due

MODES = ("naive", "plain", "checkpoint", "reversible")


def training(options: Options) -> list[dict[str, Any]]:
    """Seconds a step, forwards and backwards, without the optimizer."""
    device = torch.device(options.device)
    calls = {mode: make_step(mode, options.blocks, options) for mode in MODES}
    seconds = medians(calls, options.repeats, device)
    return [
        {
            "step": mode,
            "s": seconds[mode],
            "over plain": seconds[mode] / seconds["plain"],
            "naive over this": seconds["naive"] / seconds[mode],
        }
        for mode in MODES
    ]


def optimizers(options: Options) -> list[dict[str, Any]]:
    """Seconds a training step with each optimiser: the mean over ten, one of them with SOAP's refresh."""
    device = torch.device(options.device)
    names: tuple[Optimizer, ...] = ("adam", "adam-dct", "soap")
    calls: dict[str, Callable[[], object]] = {name: _make_steps(name, options, device) for name in names}
    seconds = medians(calls, options.repeats, device)
    return [
        {"optimizer": name, "s": time / REFRESH_EVERY, "over adam": time / seconds["adam"]}
        for name, time in seconds.items()
    ]


def _make_steps(name: Optimizer, options: Options, device: torch.device) -> Callable[[], object]:
    torch.manual_seed(0)
    model = create_model(options.models[0], blocks=options.blocks).to(device)
    hr = torch.rand(options.batch, 3, options.patch, options.patch, device=device)
    hr = hr.contiguous(memory_format=torch.channels_last)
    recipe = TrainingConfig(optimizer=name, lr=1e-4)  # small: the weights are to stay finite
    optimizer = make_optimizer(model, recipe, on_gpu=device.type == "cuda")
    loss = RescalingLoss()

    def steps() -> None:
        for step in range(REFRESH_EVERY):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                total = loss(model, hr).total
            total.backward()
            optimizer.step()
            refresh_if_due(optimizer, step)

    return steps


def memory(options: Options) -> list[dict[str, Any]]:
    """Peak memory of a step beyond model and batch, for each depth, each in a process of its own."""
    rows = []
    for depth in options.depths:
        row: dict[str, Any] = {"couplings a stage": depth}
        for mode in options.modes:
            used = in_a_process("memory", mode, replace(options, blocks=depth))
            row[f"{mode} MB"] = None if used is None else used / 1e6
        rows.append(row)
    return rows


def make_step(mode: str, blocks: int, options: Options) -> Callable[[], object]:
    """A call that runs one step."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    model: Any = randomize(create_model(options.models[0], blocks=blocks), 0.3).to(device)
    hr = torch.rand(options.batch, 3, options.patch, options.patch, device=device)
    if mode == "naive":
        model = NaiveRescaler(model)
    else:
        hr = hr.contiguous(memory_format=torch.channels_last)
    if mode == "reversible":
        model.enable_reversible_backprop()
    if mode == "checkpoint":
        for layer in model.flow:
            _checkpoint(layer)
    loss = RescalingLoss()
    reduced = options.precision == "bf16"

    def step() -> None:
        model.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            total = loss(model, hr).total
        total.backward()

    return step


def peak(mode: str, options: Options) -> int:
    """Bytes one step takes at its peak; on CPU a step that would not fit fails and harms nobody else."""
    if options.device == "cpu":
        limit_memory()
    make_step(
        mode, options.blocks, replace(options, batch=1, patch=32)
    )()  # what is set up once does not count
    step = make_step(mode, options.blocks, options)
    with PeakMemory(torch.device(options.device)) as used:
        step()
    return used.bytes


def _checkpoint(layer: Any) -> None:
    """Let a layer store its input alone and compute again, both ways."""
    forward, inverse = layer.forward, layer.inverse
    layer.forward = lambda x: checkpoint(forward, x, use_reentrant=False)
    layer.inverse = lambda y: checkpoint(inverse, y, use_reentrant=False)
