"""Exporting
=========

Both directions as ONNX files for images of any size, and what ONNX Runtime makes of them. It needs ``pip
install "invertible_rescaling[onnx]"``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import onnxruntime

from invertible_rescaling import linear_x4
from invertible_rescaling.export import Downscale, Upscale, export_onnx
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph

model = linear_x4(weights="DEFAULT").eval()
hr = from_uint8(photograph("coffee")).unsqueeze(0)

# %%
# A file holds one direction, with its weights and its latent. The metadata is yours to add to.

sessions = {}
with tempfile.TemporaryDirectory() as folder:
    for direction in (Downscale(model), Upscale(model)):
        file = Path(folder, f"{direction.name}.onnx")
        export_onnx(direction, file, metadata={"made by": "a tutorial"})
        print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
        sessions[direction.name] = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

# %%
# ONNX Runtime gives the same LR in 8 bits.

(lr,) = sessions["downscale"].run(None, {"hr": hr.numpy()})
(sr,) = sessions["upscale"].run(None, {"lr": lr})
ours = model.downscale(hr)
print(f"{(abs(255 * (lr - ours.numpy())) < 0.5).mean():.3%} of LR's values are the same")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.3))
for axis, (title, picture) in zip(axes, {"LR": lr, "SR": sr}.items(), strict=True):
    axis.imshow(picture[0].transpose(1, 2, 0).clip(0, 1), interpolation="nearest")
    axis.set_title(f"{title}, {picture.shape[3]}x{picture.shape[2]}")
    axis.axis("off")
figure.tight_layout()

# %%
# To let such a file run the model from within the library, with sizes, tiles and errors as they are:
# ``model.with_engine(create_engine("onnxruntime", model))``.
