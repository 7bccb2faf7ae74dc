"""Where a figure comes from: the machine, in words, and the commit."""

import shutil
import subprocess
from pathlib import Path

import torch

from invertible_rescaling._process import processor_here


def machine(device: str) -> str:
    """What a figure was measured on, in words."""
    where = torch.cuda.get_device_name() if device.startswith("cuda") else processor_here()
    tf32 = f", TensorFloat32 {'on' if torch.backends.cudnn.allow_tf32 else 'off'} in convolutions"
    on = f"{torch.get_num_threads()} threads" if device == "cpu" else f"CUDA {torch.version.cuda}{tf32}"
    return f"{where}, {on}, torch {torch.__version__}"


def stamp(device: str = "cpu") -> str:
    """What stands below a table: where it was measured, and by which commit."""
    return f"{machine(device)}; commit {commit()}."


def commit() -> str | None:
    """The commit that is checked out, with a plus where files differ from it; ``None`` outside git."""
    git = shutil.which("git")
    if git is None:
        return None
    here = [git, "-C", str(Path(__file__).parent)]
    found = subprocess.run(
        [*here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run([*here, "diff", "--quiet", "HEAD"], capture_output=True, check=False)
    return None if found.returncode else found.stdout.strip() + "+" * (changed.returncode == 1)
