r"""A layer inside your own model
=============================

Couplings and Haar steps are ``nn.Module``\ s. Here they are the inside of an image-to-image network that
works at half the resolution and loses nothing by it.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from invertible_rescaling import AffineCoupling, DenseBlock, HaarDownsampling, InvertibleSequential
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph


class Denoiser(nn.Module):
    """Go to half the resolution, predict the noise there, and come back through the inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = InvertibleSequential(HaarDownsampling(3), AffineCoupling(12, 3, DenseBlock))
        self.predict = DenseBlock(12, 12, growth=16)

    def forward(self, noisy: Tensor) -> Tensor:
        """Noisy images (B, 3, H, W), H and W even, to clean ones."""
        code = self.encode(noisy)
        return self.encode.inverse(code - self.predict(code))


# %%
# Both directions take part in the gradient, as every other layer does.

torch.manual_seed(0)
image = from_uint8(photograph("chelsea")).unsqueeze(0)[..., 60:252, 100:292]
model, losses = Denoiser(), []
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(120):
    top, left = (int(torch.randint(0, 128, ())) for _ in range(2))
    clean = image[..., top : top + 64, left : left + 64]
    loss = (model(clean + 0.1 * torch.randn_like(clean)) - clean).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %%
# The network is small and saw one picture; that it learns at all is what counts here.

noisy = image + 0.1 * torch.randn_like(image)
with torch.inference_mode():
    cleaned = model(noisy)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3))
for axis, (title, picture) in zip(axes, {"noisy": noisy, "cleaned": cleaned}.items(), strict=False):
    axis.imshow(picture[0].permute(1, 2, 0).clamp(0, 1).numpy())
    axis.set_title(title)
    axis.axis("off")
axes[2].plot(losses)
axes[2].set(xlabel="step", ylabel="mean absolute error")
figure.tight_layout()
