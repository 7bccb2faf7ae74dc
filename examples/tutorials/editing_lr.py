"""What an edit of LR leaves
=========================

LR is a picture, and people do things to pictures. What comes back afterwards, in decibels against the
original:
"""

import matplotlib.pyplot as plt
from torch import Tensor

from invertible_rescaling import iirn_x4, psnr
from invertible_rescaling.evaluation import bicubic_rescale
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph
from invertible_rescaling.training.degradations import jpeg

model = iirn_x4(weights="DEFAULT").eval()
hr = from_uint8(photograph("astronaut")).unsqueeze(0)
lr = model.downscale(hr)

# %%
# A little less contrast changes little. A resize by one pixel and back, a rotation, or a JPEG takes most of
# what was hidden: what is left is within a decibel of bicubic, or below it.


def resized(lr: Tensor) -> Tensor:
    """One pixel smaller, and back."""
    height, width = lr.shape[2:]
    smaller = quantize(bicubic_resize(lr, (height - 1, width - 1)))
    return quantize(bicubic_resize(smaller, (height, width)))


found = {
    "untouched": psnr(model.upscale(lr), hr).item(),
    "98 % of the contrast": psnr(model.upscale(quantize(0.98 * lr + 0.01)), hr).item(),
    "resized by a pixel, and back": psnr(model.upscale(resized(lr)), hr).item(),
    "turned, and SR turned back": psnr(model.upscale(lr.mT.contiguous()).mT, hr).item(),
    "JPEG of quality 90": psnr(model.upscale(jpeg(lr, 90)), hr).item(),
    "bicubic, for comparison": psnr(bicubic_rescale(4)(hr)[1], hr).item(),
}
for name, decibels in found.items():
    print(f"{name}: {decibels:.2f} dB")

figure, axis = plt.subplots(figsize=(7, 2.8))
axis.barh(list(found)[::-1], list(found.values())[::-1], color=["0.6", *["C0"] * 5])
axis.set(xlim=(20, None), xlabel="PSNR (dB)")
figure.tight_layout()

# %%
# Weights that were trained for JPEG are another matter: ``small_x4(weights="JPEG90")``.
