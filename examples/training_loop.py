"""The training loop written out, for whoever wants to change it.

    python examples/training_loop.py --data DIR --val DIR --out mine.safetensors

A rescaler on patches, with SOAP, a cosine schedule, averaged weights and a validation at the end. The program
``invertible-rescaling train`` does more: it begins with the linear code, resumes, keeps to a time limit, and
runs on several GPUs. Needs ``pip install "invertible_rescaling[images]"``.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from invertible_rescaling import InvertibleRescaler, RescalingLoss, save_checkpoint, small_x2
from invertible_rescaling.evaluation import bicubic_rescale, measure, model_rescale
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.training import SOAP, PatchSampler, load_images


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    given = parse(argv)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = small_x2().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    files = [(path, None) for path in find_images(given.data)]
    images = load_images(files, read_image, scale=model.scale, patch=given.patch, skipped=print)
    sampler = PatchSampler(images, patch=given.patch, batch=given.batch, scale=model.scale, seed=0)

    loss = RescalingLoss(reconstruction=1, guide=4, latent=0)
    optimizer = SOAP(model.parameters(), lr=3e-3)
    warmup = max(1, given.steps // 20)
    schedule = LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / given.steps))
    )
    decay = max(0.9, 1 - 20 / given.steps)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    for step in range(given.steps):
        patches, _ = sampler.batch_at(step)
        hr = from_uint8(patches.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            terms = loss(model, hr)
        optimizer.zero_grad()
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        if step % 10 == 2:  # the bases follow the gradients' statistics, which the first steps gather
            optimizer.refresh()
        schedule.step()
        averaged.update_parameters(model)
        if step % 50 == 0:
            print(f"step {step}: loss {terms.total.item():.4f}, LR's error {terms.guide.item():.2e}")

    trained = averaged.module.cpu().eval()
    assert isinstance(trained, InvertibleRescaler)
    save_checkpoint(trained, given.out, metadata={"steps": given.steps})
    validate(trained, given.val)


@torch.no_grad()
def validate(model: InvertibleRescaler, folder: Path) -> None:
    """Print the model's mean PSNR on the images of a folder, beside bicubic's."""
    found: dict[str, list[float]] = {"bicubic": [], "ours": []}
    for path in find_images(folder):
        hr = from_uint8(read_image(path)).unsqueeze(0)
        for name, rescale in (("bicubic", bicubic_rescale(model.scale)), ("ours", model_rescale(model))):
            found[name].append(measure(rescale, hr, model.scale).figures["psnr_rgb"])
    for name, figures in found.items():
        print(f"{name}: {sum(figures) / len(figures):.2f} dB (PSNR, RGB)")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="images to train on")
    parser.add_argument("--val", type=Path, required=True, metavar="DIR", help="images to validate on")
    parser.add_argument("--out", type=Path, default=Path("model.safetensors"), metavar="FILE")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=48)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
