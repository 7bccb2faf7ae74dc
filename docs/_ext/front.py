"""The front page's pictures: a photograph, its LR, and what bicubic and the model bring back."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from invertible_rescaling import iirn_x4, psnr
from invertible_rescaling.evaluation import bicubic_rescale
from invertible_rescaling.images import from_uint8, to_uint8
from invertible_rescaling.training.data import photograph

PHOTOGRAPH = "astronaut"
CROPS = ((84, 180), (344, 119))  # upper left corners, in pixels of HR
SIDE, ENLARGED = 80, 4
_PAGE = Path(__file__).parent / "front.html"


def write(made: Path) -> None:
    """Write ``made/static/front/`` and ``made/front.html``."""
    folder = made / "static" / "front"
    folder.mkdir(exist_ok=True)
    hr = from_uint8(photograph(PHOTOGRAPH)).unsqueeze(0)
    with torch.inference_mode():
        model = iirn_x4(weights="DEFAULT").eval()
        lr = model.downscale(hr)
        ours = model.upscale(lr, size=hr.shape[-2:])
    _, bicubic = bicubic_rescale(4)(hr)
    pictures = {"hr": hr, "bicubic": bicubic, "ours": ours}
    image_of(lr).save(folder / "lr.png")
    for name, picture in pictures.items():
        image_of(picture).save(folder / f"{name}.webp", quality=92, method=6)
    for number, (top, left) in enumerate(CROPS):
        for name, picture in pictures.items():
            crop = picture[..., top : top + SIDE, left : left + SIDE]
            enlarged = interpolate(crop, scale_factor=ENLARGED, mode="nearest")
            image_of(enlarged).save(folder / f"{name}_{number}.webp", lossless=True, method=6)
    page = _PAGE.read_text()
    for name, sr in (("BICUBIC", bicubic), ("OURS", ours)):
        page = page.replace(f"{{{name}_DB}}", f"{float(psnr(sr, hr).mean()):.1f}")
    kilobytes = (folder / "lr.png").stat().st_size / 1e3
    (made / "front.html").write_text(page.replace("{LR_KB}", f"{kilobytes:.0f}"))


def image_of(picture: Tensor) -> Image.Image:
    """The first picture of a batch, (1, 3, H, W) in [0, 1], for Pillow."""
    return Image.fromarray(to_uint8(picture[0]).permute(1, 2, 0).contiguous().numpy())
