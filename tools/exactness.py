"""How rounding grows through a rescaler: check_invertible's amplification against gain, depth and dtype.

python tools/exactness.py
"""

import argparse
import sys

import torch

from invertible_rescaling import InvertibleRescaler
from invertible_rescaling.testing import check_invertible, randomize
from provenance import stamp

_BLOCKS = (2, 8, 32)
_GAINS = (0.25, 0.5, 0.75, 1.0, 1.5)


def main() -> int:
    """Print a Markdown table of the largest round-trip error for each sub-network, depth and gain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=32, help="of the square image")
    parser.add_argument("--float64", action="store_true", help="measure in float64 rather than float32")
    options = parser.parse_args()
    dtype = torch.float64 if options.float64 else torch.float32
    size = f"{options.side}x{options.side}"
    print(f"Largest round-trip error, x4, {size}, {dtype}; in brackets over epsilon.")
    print(f"{stamp()}\n")
    print("| sub-network, couplings | " + " | ".join(f"gain {gain:g}" for gain in _GAINS) + " |")
    print("|---" * (len(_GAINS) + 1) + "|")
    for subnet in ("conv", "crdb", "dense", "rrdb"):
        for blocks in _BLOCKS:
            cells = [measure(subnet, blocks, gain, options.side, dtype) for gain in _GAINS]
            print(f"| {subnet}, {blocks}+{blocks} | " + " | ".join(cells) + " |", flush=True)
    return 0


def measure(subnet: str, blocks: int, gain: float, side: int, dtype: torch.dtype) -> str:
    """The error of one random model, as the text of a table's cell."""
    model = randomize(InvertibleRescaler(4, blocks=blocks, subnet=subnet), gain).to(dtype)
    image = torch.rand(1, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        lr, z = model(image)
        error = float((model.inverse(lr, z) - image).abs().max())
    if not error < 0.1:
        return "no inverse left"
    report = check_invertible(model, image, tolerance=float("inf"))
    if report.amplification > 1e7:  # only on part of the image is anything left
        return "no inverse left"
    return f"{report.forward_error:.0e} ({report.amplification:.0f})"


if __name__ == "__main__":
    sys.exit(main())
