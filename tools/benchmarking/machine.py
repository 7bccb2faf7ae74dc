"""The machine that a figure was measured on, in words."""

import torch

from invertible_rescaling._process import processor_here


def machine(device: str) -> str:
    """What a figure was measured on, in words."""
    where = torch.cuda.get_device_name() if device.startswith("cuda") else processor_here()
    tf32 = f", TensorFloat32 {'on' if torch.backends.cudnn.allow_tf32 else 'off'} in convolutions"
    on = f"{torch.get_num_threads()} threads" if device == "cpu" else f"CUDA {torch.version.cuda}{tf32}"
    return f"{where}, {on}, torch {torch.__version__}"
