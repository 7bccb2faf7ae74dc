"""Super-resolution networks of other projects, read by spandrel (the extra ``[compare]``)."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.methods import SEED, Row, through_of
from evaluation.task import Task
from evaluation.words import one_line, tell_apart
from invertible_rescaling.errors import CheckpointError, ConfigError, RescalingError
from invertible_rescaling.evaluation import bicubic_lr, model_rescale


class ForeignNetwork:
    """A network as spandrel describes it, on bicubic LR."""

    def __init__(self, descriptor: Any) -> None:
        self.descriptor = descriptor

    def downscale(self, hr: Tensor) -> Tensor:
        """Bicubic LR at 8 bits."""
        return bicubic_lr(hr, self.descriptor.scale)

    def upscale(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge LR ``(1, 3, h, w)``, clamped to [0, 1]; spandrel pads it where the network wants that."""
        sr: Tensor = self.descriptor(lr.contiguous())
        return sr[..., : size[0], : size[1]]


def foreign_rows(task: Task, problems: list[str]) -> list[Row]:
    """The rows of ``--spandrel``; what cannot be read is added to ``problems``."""
    files = list(dict.fromkeys(task.spandrel))
    rows = []
    for path, stem in zip(files, tell_apart([path.with_suffix("") for path in files]), strict=True):
        try:
            descriptor = load(path, task)
        except RescalingError as error:
            problems.append(one_line(error))
            continue
        rescale = model_rescale(ForeignNetwork(descriptor), seed=SEED, through=through_of(task.through))
        name = descriptor.architecture.name
        facts = {"file": str(path), "architecture": name}
        rows.append(Row(f"{stem} (x{task.scale} {name}, on bicubic LR)", "spandrel", rescale, facts))
    return rows


def load(path: Path, task: Task) -> Any:
    """The network in a file, in float32 on the device.

    Raises:
        ConfigError: spandrel cannot be imported, or the network does not fit the table.
        CheckpointError: spandrel knows no network of that kind, or cannot read the file.
    """
    try:
        spandrel = importlib.import_module("spandrel")
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: a torchvision of another torch
        raise ConfigError(
            f"--spandrel needs spandrel, which cannot be imported ({one_line(error)}): "
            "pip install 'invertible_rescaling[compare]'"
        ) from error
    try:
        descriptor = spandrel.ModelLoader(device=torch.device("cpu")).load_from_file(path)
    except Exception as error:  # of whatever is in the file
        raise CheckpointError(f"--spandrel {path}: {one_line(error)}") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.scale != task.scale:
        raise ConfigError(
            f"--spandrel {path} is {descriptor.architecture.name} of scale {descriptor.scale}, for "
            f"{descriptor.purpose}; a super-resolution network of --scale {task.scale} is wanted"
        )
    if (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        raise ConfigError(
            f"--spandrel {path} takes {descriptor.input_channels} channels and gives "
            f"{descriptor.output_channels}; images are read as RGB, which has 3"
        )
    return descriptor.to(task.device, torch.float32).eval()
