"""Shrink a photograph so that it can be brought back, and bring it back.

    python examples/quickstart.py photo.jpg

Writes small.png, four times smaller on each side, and restored.png; needs ``pip install
"invertible_rescaling[images]"``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from invertible_rescaling import iirn_x4, psnr
from invertible_rescaling.images import from_uint8, read_image, write_image


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where the two files go")
    arguments = parser.parse_args(argv)

    model = iirn_x4(weights="DEFAULT").eval()  # trained weights come with the package
    hr = from_uint8(read_image(arguments.photograph)).unsqueeze(0)  # (1, 3, H, W) in [0, 1]

    lr = model.downscale(hr)  # (1, 3, ceil(H / 4), ceil(W / 4)), of 8-bit values
    write_image(arguments.out / "small.png", lr[0])  # without loss: LR carries what the restoration needs

    stored = from_uint8(read_image(arguments.out / "small.png")).unsqueeze(0)
    sr = model.upscale(stored, size=(hr.shape[2], hr.shape[3]))
    write_image(arguments.out / "restored.png", sr[0])
    print(f"restored at {psnr(sr, hr, border=4).item():.2f} dB (PSNR, RGB)")


if __name__ == "__main__":
    main()
