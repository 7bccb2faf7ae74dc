"""Small pictures, one by one and together."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarking.inference import photograph
from benchmarking.options import Options
from benchmarking.timing import medians
from invertible_rescaling import InvertibleRescaler, create_model, list_models

SIDES = (32, 64, 128)
TOGETHER = (1, 4, 16)


@torch.inference_mode()
def batches(options: Options) -> list[dict[str, Any]]:
    """Milliseconds a picture, down, in batches of 1, 4 and 16, which take turns."""
    device, rows = torch.device(options.device), []
    for name in options.models:
        weights = "DEFAULT" if name in list_models(name, pretrained=True) else None
        model: InvertibleRescaler = create_model(name, weights=weights).eval().to(device)
        for side in SIDES:
            pictures = photograph(4 * side, 4 * side).to(device)
            squares = pictures.unfold(2, side, side).unfold(3, side, side)
            squares = squares.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, side, side).contiguous()
            calls: dict[str, Callable[[], object]] = {
                str(count): partial(_down, model, torch.split(squares, count)) for count in TOGETHER
            }
            seconds = medians(calls, options.repeats, device)
            row: dict[str, Any] = {"model": name, "side": side}
            row |= {f"{count} together, ms": 1e3 * seconds[str(count)] / len(squares) for count in TOGETHER}
            rows.append(row)
    return rows


def _down(model: InvertibleRescaler, groups: tuple[Tensor, ...]) -> None:
    for group in groups:
        model.downscale(group)
