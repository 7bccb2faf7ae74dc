"""Megapixels a second of every model and engine at one and two threads, beside the PSNR of the model."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarking.inference import photograph
from benchmarking.options import Options
from benchmarking.timing import medians
from invertible_rescaling import RescalingError, create_model
from invertible_rescaling._process import cores_here
from invertible_rescaling.engines import create_engine
from invertible_rescaling.images import Picture, to_uint8
from invertible_rescaling.pipeline import PictureRescaler
from invertible_rescaling.weights import weights_of

BENCHMARK = "BSD100"
_MARKERS = {"torch": "o", "onnxruntime": "s", "openvino": "^", "cudagraphs": "D"}


@torch.inference_mode()
def speed(options: Options) -> list[dict[str, Any]]:
    """Both directions of whole pictures, as the shell rescales them; PSNR is what the weights state.

    All engines of a model take turns. Those that cannot run a model are left out.
    """
    device, rows = torch.device(options.device), []
    picture = Picture(to_uint8(photograph(*options.size))[0])
    megapixels = options.size[0] * options.size[1] / 1e6
    threads_before = torch.get_num_threads()
    for name, threads in product(options.models, _threads()):
        torch.set_num_threads(threads)
        member = weights_of(name)["DEFAULT"]
        model = create_model(name, weights="DEFAULT").eval().to(device)
        calls: dict[str, Callable[[], object]] = {}
        for engine in options.engines:
            try:
                rescaler = PictureRescaler(model.with_engine(create_engine(engine, model)))
            except RescalingError:
                continue
            lr = rescaler.downscale(picture)
            calls[f"{engine} down"] = partial(rescaler.downscale, picture)
            calls[f"{engine} up"] = partial(rescaler.restore, lr, picture.size)
        seconds = medians(calls, options.repeats, device)
        rows += [
            {
                "model": name,
                "scale": model.scale,
                "engine": engine,
                "threads": threads,
                "down MP/s": megapixels / seconds[f"{engine} down"],
                "up MP/s": megapixels / seconds[f"{engine} up"],
                f"{BENCHMARK} dB": member.value.metrics[BENCHMARK]["psnr_rgb"],
            }
            for engine in options.engines
            if f"{engine} down" in calls
        ]
    torch.set_num_threads(threads_before)
    return rows


def draw_speed(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw PSNR against megapixels a second there and back, a panel a scale; hollow at one thread."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    scales = sorted({row["scale"] for row in rows})
    most = max(row["threads"] for row in rows)
    figure, axes = plt.subplots(1, len(scales), figsize=(5.2 * len(scales), 4.4), squeeze=False)
    for scale, axis in zip(scales, axes[0], strict=True):
        here = [row for row in rows if row["scale"] == scale]
        for row in here:
            rate = 1 / (1 / row["down MP/s"] + 1 / row["up MP/s"])
            filled = row["threads"] == most
            axis.plot(
                rate,
                row[f"{BENCHMARK} dB"],
                _MARKERS[row["engine"]],
                color=f"C{list(_MARKERS).index(row['engine'])}",
                fillstyle="full" if filled else "none",
                label=f"{row['engine']}, {row['threads']} thread{'s' * (row['threads'] > 1)}",
            )
        for name in dict.fromkeys(row["model"] for row in here):
            own = [row for row in here if row["model"] == name]
            fastest = max(1 / (1 / row["down MP/s"] + 1 / row["up MP/s"]) for row in own)
            axis.annotate(
                name.removesuffix(f"_x{scale}"),
                (fastest, own[0][f"{BENCHMARK} dB"]),
                xytext=(9, -3),
                textcoords="offset points",
                fontsize=9,
            )
        axis.set(xscale="log", title=f"x{scale}", xlabel="megapixels of HR a second, there and back")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.2)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"PSNR on {BENCHMARK}, RGB (dB)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.legend(known.values(), known.keys(), ncols=len(known), fontsize=9, loc="lower center")
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _threads() -> list[int]:
    return [1, 2] if cores_here() > 1 else [1]
