"""Training on your photographs
============================

``Trainer`` takes images as tensors and gives back a model with averaged weights. At the shell the same
program is ``invertible-rescaling train --data DIR``.
"""

import tempfile

import matplotlib.pyplot as plt

from invertible_rescaling import psnr
from invertible_rescaling.evaluation import bicubic_rescale
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training import Trainer, TrainingConfig
from invertible_rescaling.training.data import photograph

# %%
# A handful of photographs stands for yours here. One is kept for validation, and takes no part in training.

images = [photograph(name) for name in ("chelsea", "coffee", "rocket")]
held_back = photograph("astronaut")

# %%
# A fresh run first learns the *linear code*, single convolutions, and goes on from there with the whole
# network. Real runs take an hour; ``fit="20m"`` asks for as many steps as fit into a time.

with tempfile.TemporaryDirectory() as folder:
    config = TrainingConfig(
        model="linear_x4", steps=300, batch_size=4, patch=48, out=folder, cpu=True, quiet=True
    )
    result = Trainer(config, train=images, val=[held_back]).fit()

# %%
# The result on the photograph that was held back:

hr = from_uint8(held_back).unsqueeze(0)
sr = result.model.upscale(result.model.downscale(hr), size=hr.shape[-2:])
_, bicubic = bicubic_rescale(4)(hr)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
crop = (..., slice(96, 224), slice(150, 278))
for axis, (name, picture) in zip(axes, {"original": hr, "bicubic": bicubic, "ours": sr}.items(), strict=True):
    axis.imshow(picture[crop][0].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    axis.set_title(name if picture is hr else f"{name}, {psnr(picture, hr).item():.2f} dB")
    axis.axis("off")
figure.tight_layout()
