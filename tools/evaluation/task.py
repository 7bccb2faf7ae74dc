"""What is to be measured."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch


@dataclass(frozen=True)
class Task:
    """The command line, understood.

    Attributes:
        folders: with benchmarks in or below them.
        checkpoints: files of trained models.
        models: registered models, each NAME or NAME:WEIGHTS.
        scale: of all of them.
        latent: the name of one to take in place of the models' own.
        device: to measure on.
        json: a file for the figures, or "-" for the standard output.
        limit: how many images of each benchmark are taken.
        through: what happens to LR before it is brought back, in the words of ``--through``.
        tile, overlap: for the models' downscale and upscale.
        paper: whether the table is the paper's Table 1.
        picture: a file for crops of one image by every row, like the paper's Fig. 6.
        picture_of: the name of that image, with or without its suffix; the first one by default.
        crop: top, left and side of those crops; around the middle by default.
        spandrel: files of super-resolution networks of other projects.
    """

    folders: tuple[Path, ...]
    checkpoints: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    scale: int = 4
    latent: str | None = None
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    json: str | None = None
    limit: int | None = None
    through: str | None = None
    tile: int | None = None
    overlap: int | None = None
    paper: bool = False
    picture: Path | None = None
    picture_of: str | None = None
    crop: tuple[int, int, int] | None = None
    spandrel: tuple[Path, ...] = ()
