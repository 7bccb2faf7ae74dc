"""Both directions of named models, beside IRN as one would write it down."""

from typing import Any

import torch
from torch import Tensor

from benchmarking.naive import NaiveRescaler
from benchmarking.options import Options
from benchmarking.timing import copy_rate, medians, product_rate
from complexity import count
from invertible_rescaling import InvertibleRescaler, create_model, psnr
from invertible_rescaling.functional import quantize
from invertible_rescaling.testing import randomize


@torch.inference_mode()
def inference(options: Options) -> list[dict[str, Any]]:
    """Seconds down and up, against naive IRN x4 and against a matrix product of the same run."""
    device = torch.device(options.device)
    height, width = options.size
    hr = torch.rand(1, 3, height, width, device=device)
    models = {name: _model(name, device) for name in options.models}
    naive = NaiveRescaler(_model("irn_x4", device)).eval()
    calls = {"irn_x4, naive down": lambda: quantize(naive(hr)[0])}
    small = quantize(naive(hr)[0])
    calls["irn_x4, naive up"] = lambda: naive.inverse(small, naive.latent(small)).clamp(0, 1)
    for name, model in models.items():
        calls |= _calls(name, model, hr, options)
    seconds = medians(calls, options.repeats, device)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    rate, copied = product_rate(options.repeats, device, dtype), copy_rate(options.repeats, device)
    baseline = seconds["irn_x4, naive down"] + seconds["irn_x4, naive up"]
    rows: list[dict[str, Any]] = [{"model": "irn_x4, naive", **_times(seconds, "irn_x4, naive")}]
    for name, model in models.items():
        cost = count(model, (-(-height // model.scale) * model.scale, -(-width // model.scale) * model.scale))
        row: dict[str, Any] = {"model": name, **_times(seconds, name)}
        row["times as fast as naive IRN"] = baseline / (row["down s"] + row["up s"])
        row["down / product"] = cost.downscale / row["down s"] / rate
        row["up / product"] = cost.upscale / row["up s"] / rate
        if options.precision == "bf16":
            row |= _agreement(model, hr, options)
        rows.append(row)
    for row in rows:
        row |= {"product GFLOP/s": 2 * rate / 1e9, "copy GB/s": copied / 1e9}
    return rows


def _model(name: str, device: torch.device) -> InvertibleRescaler:
    model: InvertibleRescaler = randomize(create_model(name), 0.3).eval().to(device)
    return model


def _calls(name: str, model: InvertibleRescaler, hr: Tensor, options: Options) -> dict[str, Any]:
    down, up = model.downscale, model.upscale
    if options.compile:
        down, up = (torch.compile(call, mode="max-autotune-no-cudagraphs") for call in (down, up))
    lr = model.downscale(hr)
    size = (hr.shape[2], hr.shape[3])

    def run(call: Any) -> Any:
        with torch.autocast(hr.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            return call()

    return {f"{name} down": lambda: run(lambda: down(hr)), f"{name} up": lambda: run(lambda: up(lr, size))}


def _times(seconds: dict[str, float], name: str) -> dict[str, float]:
    return {"down s": seconds[f"{name} down"], "up s": seconds[f"{name} up"]}


def _agreement(model: InvertibleRescaler, hr: Tensor, options: Options) -> dict[str, float]:
    """How far half precision is from float32: LR values within one 8-bit step, and the change in PSNR."""
    size = (hr.shape[2], hr.shape[3])
    lr = model.downscale(hr)
    sr = model.upscale(lr, size)
    with torch.autocast(hr.device.type, torch.bfloat16):
        half = model.downscale(hr)
        half_sr = model.upscale(half, size)
    near = ((half - lr).abs() < 1.5 / 255).float().mean()
    change = psnr(half_sr, hr).mean() - psnr(sr, hr).mean()
    return {"LR within a step": float(near), "PSNR change dB": float(change)}
