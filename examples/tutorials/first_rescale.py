"""A first rescale
===============

Shrink a photograph to a quarter of its height and width, look at the small picture, and bring the large one
back.
"""

import matplotlib.pyplot as plt

from invertible_rescaling import iirn_x4, psnr
from invertible_rescaling.evaluation import bicubic_rescale
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph

# %%
# Images are tensors ``(B, 3, H, W)`` with values from 0 to 1. ``read_image`` reads a file of yours; here it
# is a photograph that scikit-image ships.

hr = from_uint8(photograph("astronaut")).unsqueeze(0)
hr.shape

# %%
# The model is one bijection. ``downscale`` runs it forward and keeps the first three channels, rounded to 8
# bits: the small picture, LR. ``upscale`` makes what was left out from LR, and runs the bijection backward.

model = iirn_x4(weights="DEFAULT").eval()
lr = model.downscale(hr)
sr = model.upscale(lr, size=hr.shape[-2:])

# %%
# LR is an ordinary picture, near to what bicubic shrinking gives. What comes back is several decibels above
# what bicubic brings back.

bicubic_lr, bicubic_sr = bicubic_rescale(4)(hr)
print(f"LR against bicubic LR: {psnr(lr, bicubic_lr).item():.1f} dB")
print(f"bicubic: {psnr(bicubic_sr, hr).item():.2f} dB, iirn_x4: {psnr(sr, hr).item():.2f} dB")

figure, axes = plt.subplots(1, 4, figsize=(12, 3.3))
crop = (..., slice(96, 224), slice(150, 278))
shown = {"LR, whole": lr, "original": hr[crop], "bicubic": bicubic_sr[crop], "iirn_x4": sr[crop]}
for axis, (title, picture) in zip(axes, shown.items(), strict=True):
    axis.imshow(picture[0].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    axis.set_title(title)
    axis.axis("off")
figure.tight_layout()

# %%
# Store LR without loss, as PNG say: ``write_image("small.png", lr[0])``. A JPEG needs weights that were
# trained for it (``small_x4(weights="JPEG90")``).
