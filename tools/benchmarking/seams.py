"""What tiles change in what the shipped weights make of a photograph."""

from typing import Any

from benchmarking.inference import photograph
from benchmarking.options import Options
from invertible_rescaling import create_model, psnr

TILE, OVERLAPS = 128, (None, 0, 16, 64)


def seams(options: Options) -> list[dict[str, Any]]:
    """Largest changes, in 8-bit steps, and the change of PSNR, of tiles of 128 pixels against the whole."""
    model = create_model(options.models[0], weights="DEFAULT").eval().to(options.device)
    hr = photograph(*options.size).to(options.device)
    size = (hr.shape[2], hr.shape[3])
    lr = model.downscale(hr)
    sr = model.upscale(lr, size)
    rows = []
    for overlap in OVERLAPS:
        small = model.downscale(hr, tile=TILE, overlap=overlap)
        large = model.upscale(small, size, tile=TILE, overlap=overlap)
        rows.append(
            {
                "overlap": "exact" if overlap is None else overlap,
                "largest change of LR": round(255 * float((small - lr).abs().max())),
                "LR values changed %": 100 * float((small != lr).float().mean()),
                "largest change of SR": 255 * float((large - sr).abs().max()),
                "PSNR change dB": float(psnr(large, hr).mean() - psnr(sr, hr).mean()),
            }
        )
    return rows
