"""Both directions of named models, beside IRN as one would write it down."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarking.naive import NaiveRescaler
from benchmarking.official import OfficialRescaler
from benchmarking.options import Options
from benchmarking.timing import copy, medians, product
from complexity import count
from invertible_rescaling import InvertibleRescaler, create_model, list_models, psnr
from invertible_rescaling.engines import create_engine
from invertible_rescaling.functional import quantize
from invertible_rescaling.images import from_uint8
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.data import photograph as load_photograph


@torch.inference_mode()
def inference(options: Options) -> list[dict[str, Any]]:
    """Seconds down and up, against naive IRN x4 and a matrix product that take turns with them."""
    device = torch.device(options.device)
    height, width = options.size
    hr = photograph(height, width).to(device)
    models = {name: _model(name, device) for name in options.models}
    variants: dict[str, InvertibleRescaler] = {}
    for name, model in models.items():
        for engine in options.engines:
            label = name if engine == "torch" else f"{name}, {engine}"
            variants[label] = model.with_engine(create_engine(engine, model))
    naive = NaiveRescaler(_model("irn_x4", device)).eval()
    small = quantize(naive(hr)[0])
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    multiply, multiply_adds = product(device, dtype)
    duplicate, copied = copy(device)
    calls: dict[str, Callable[[], object]] = {
        "product": multiply,
        "copy": duplicate,
        "irn_x4, naive down": _at(options, device, lambda: quantize(naive(hr)[0])),
        "irn_x4, naive up": _at(
            options, device, lambda: naive.inverse(small, naive.latent(small)).clamp(0, 1)
        ),
    }
    others = ["irn_x4, naive"]
    if options.official:
        official = OfficialRescaler(options.official, _model("irn_x4", device))
        others.append("irn_x4, its authors' program")
        calls[f"{others[-1]} down"] = _at(options, device, lambda: official.downscale(hr))
        calls[f"{others[-1]} up"] = _at(options, device, lambda: official.upscale(small))
    for name, model in variants.items():
        calls |= _calls(name, model, hr, options)
    seconds = medians(calls, options.repeats, device)
    rate = multiply_adds / seconds["product"]
    totals = {name: seconds[f"{name} down"] + seconds[f"{name} up"] for name in others}
    rows: list[dict[str, Any]] = [{"model": name, **_times(seconds, name)} for name in others]
    for name, model in variants.items():
        cost = count(model, (-(-height // model.scale) * model.scale, -(-width // model.scale) * model.scale))
        row: dict[str, Any] = {"model": name, **_times(seconds, name)}
        for other, total in totals.items():
            row[f"times as fast as {other}"] = total / (row["down s"] + row["up s"])
        pixels = height * width / 1e6
        row["down MP/s"], row["up MP/s"] = pixels / row["down s"], pixels / row["up s"]
        row["down / product"] = cost.downscale / row["down s"] / rate
        row["up / product"] = cost.upscale / row["up s"] / rate
        if options.precision == "bf16":
            row |= _agreement(name.partition(",")[0], model, hr)
        rows.append(row)
    for row in rows:
        row |= {"product GFLOP/s": 2 * rate / 1e9, "copy GB/s": copied / seconds["copy"] / 1e9}
    return rows


def photograph(height: int, width: int) -> Tensor:
    """scikit-image's astronaut, mirrored again and again until it is as large, ``(1, 3, H, W)``."""
    tile = from_uint8(load_photograph("astronaut")).unsqueeze(0)
    pair = torch.cat((tile, tile.flip(3)), 3)
    block = torch.cat((pair, pair.flip(2)), 2)
    rows, columns = (-(-side // block.shape[2]) for side in (height, width))
    return block.repeat(1, 1, rows, columns)[..., :height, :width].contiguous()


def _model(name: str, device: torch.device) -> InvertibleRescaler:
    model: InvertibleRescaler = randomize(create_model(name), 0.3).eval().to(device)
    return model


def _calls(name: str, model: InvertibleRescaler, hr: Tensor, options: Options) -> dict[str, Any]:
    down, up = model.downscale, model.upscale
    if options.compile:
        down, up = (torch.compile(call, mode="max-autotune-no-cudagraphs") for call in (down, up))
    lr = model.downscale(hr)
    size = (hr.shape[2], hr.shape[3])

    return {
        f"{name} down": _at(options, hr.device, lambda: down(hr)),
        f"{name} up": _at(options, hr.device, lambda: up(lr, size)),
    }


def _at(options: Options, device: torch.device, call: Callable[[], object]) -> Callable[[], object]:
    """A call whose sub-networks are of the precision that was asked for."""

    def run() -> object:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            return call()

    return run


def _times(seconds: dict[str, float], name: str) -> dict[str, float]:
    return {"down s": seconds[f"{name} down"], "up s": seconds[f"{name} up"]}


def _agreement(name: str, model: InvertibleRescaler, hr: Tensor) -> dict[str, Any]:
    """How far half precision is from float32: LR values within one 8-bit step, and the change in PSNR.

    Taken from the model's shipped weights where it has any: what half precision costs depends on them.
    """
    trained = name in list_models(name, pretrained=True)
    if trained:
        model = create_model(name, weights="DEFAULT").eval().to(hr.device)
    size = (hr.shape[2], hr.shape[3])
    lr = model.downscale(hr)
    sr = model.upscale(lr, size)
    with torch.autocast(hr.device.type, torch.bfloat16):
        half = model.downscale(hr)
        half_sr = model.upscale(half, size)
    near = ((half - lr).abs() < 1.5 / 255).float().mean()
    change = psnr(half_sr, hr).mean() - psnr(sr, hr).mean()
    return {
        "agreement of": "shipped weights" if trained else "random weights",
        "LR within a step": float(near),
        "PSNR change dB": float(change),
    }
