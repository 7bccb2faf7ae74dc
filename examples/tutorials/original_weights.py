"""Weights of the original authors
===============================

IRN's authors publish their checkpoints. ``load_original_irn`` reads them: the scale, the couplings and
their widths are read off the file.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from invertible_rescaling import irn_x2, load_original_irn
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph

# %%
# With a file of theirs it is one line: ``model = load_original_irn("IRN_x4.pth").eval()``. So that this
# page needs no download, a file in their layout is written here first, with this library's weights of
# ``irn_x2``. ``F``, ``G`` and ``H`` in their names are phi, eta and rho here.

ours = irn_x2(weights="DEFAULT").eval()
haar = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float32)
letters = {"phi": "F", "eta": "G", "rho": "H"}
state, channels = {}, 3
for index, layer in enumerate(ours.flow):
    tensors = layer.state_dict()
    if not tensors:  # a Haar step, whose filters they keep among the weights
        state[f"operations.{index}.haar_weights"] = haar.reshape(4, 1, 2, 2).repeat(channels, 1, 1, 1)
        channels *= 4
    for name, tensor in tensors.items():
        role, *middle, kind = name.split(".")
        number = 5 if middle == ["last"] else int(middle[-1]) + 1
        state[f"operations.{index}.{letters[role]}.conv{number}.{kind}"] = tensor

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "IRN_x2.pth")
    torch.save(state, file)
    theirs = load_original_irn(file).eval()
print(theirs.config)

# %%
# Both shrink a photograph to the same LR.

hr = from_uint8(photograph("coffee")).unsqueeze(0)
lr = theirs.downscale(hr)
print("the same LR:", torch.equal(lr, ours.downscale(hr)))

figure, axis = plt.subplots(figsize=(4.5, 3.2))
axis.imshow(lr[0].permute(1, 2, 0).numpy(), interpolation="nearest")
axis.set_title(f"LR, {lr.shape[3]}x{lr.shape[2]}")
axis.axis("off")
figure.tight_layout()
