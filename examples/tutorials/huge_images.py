"""Tiles for huge images
=====================

``tile=`` works in tiles. Alone it is *exact*: the result is the whole image's, to rounding, even where
channel attention pools over the whole image. With ``overlap=`` the tiles go their own ways, which takes
least memory.
"""

import matplotlib.pyplot as plt
import torch

from invertible_rescaling import small_x4
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph

model = small_x4(weights="DEFAULT").eval()
hr = from_uint8(photograph("astronaut")).unsqueeze(0)

# %%
# Compare LR of the whole image with LR of tiles of 128 pixels, in steps of 8 bits:

whole = model.downscale(hr)
ways = {
    "exact": model.downscale(hr, tile=128),
    "overlap 0": model.downscale(hr, tile=128, overlap=0),
    "overlap 32": model.downscale(hr, tile=128, overlap=32),
}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
for axis, (name, lr) in zip(axes, ways.items(), strict=True):
    steps = (255 * (lr - whole)).abs().round().amax(1)[0]
    print(f"{name}: {(steps > 0).float().mean():.1%} of LR's pixels differ, by {steps.max():.0f} at most")
    axis.imshow(steps.clamp(0, 4).numpy(), cmap="magma", vmin=0, vmax=4)
    axis.set_title(name)
    axis.axis("off")
figure.tight_layout()

# %%
# Models without attention see only so far, and from that overlap on independent tiles are exact, too:

from invertible_rescaling import linear_x4

linear = linear_x4(weights="DEFAULT").eval()
reach = -(-linear.receptive_field // 4) * 4
same = torch.equal(linear.downscale(hr), linear.downscale(hr, tile=128, overlap=reach))
print(
    f"linear_x4 sees {linear.receptive_field} pixels; tiles that overlap by {reach} give the same LR: {same}"
)
