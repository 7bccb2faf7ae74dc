"""Where the time goes: the operations of both directions and their shares."""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile as record

from benchmarking.inference import photograph
from benchmarking.options import Options
from invertible_rescaling import InvertibleRescaler, create_model
from invertible_rescaling.testing import randomize

_SHOWN = 0.01  # of the whole


@torch.inference_mode()
def profile(options: Options) -> list[dict[str, Any]]:
    """Each operation's own time, without that of the operations in it, in share and milliseconds a call.

    What takes less than a hundredth is summed up in a row of its own.
    """
    device, rows = torch.device(options.device), []
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    hr = photograph(*options.size).to(device)
    for name in options.models:
        model: InvertibleRescaler = randomize(create_model(name), 0.3).eval().to(device)
        lr = model.downscale(hr)
        for direction, call, given in (("down", model.downscale, hr), ("up", model.upscale, lr)):
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                call(given)
                with record(activities=activities) as recorded:
                    for _ in range(options.repeats):
                        call(given)
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
            found = recorded.key_averages()
            own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
            times = {event.key: (getattr(event, own), event.count) for event in found}
            total = sum(time for time, _ in times.values())
            shown = {key: pair for key, pair in times.items() if pair[0] >= _SHOWN * total}
            left = [pair for key, pair in times.items() if key not in shown]
            shown = dict(sorted(shown.items(), key=lambda item: -item[1][0]))
            shown["the rest"] = (sum(time for time, _ in left), sum(count for _, count in left))
            rows += [
                {
                    "model": name,
                    "direction": direction,
                    "operation": key,
                    "calls": count // options.repeats,
                    "ms": time / options.repeats / 1e3,
                    "share %": 100 * time / total,
                }
                for key, (time, count) in shown.items()
            ]
    return rows
