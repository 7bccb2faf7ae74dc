"""The command line as tests run it: in this process or in another, on a model small enough to be quick."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from invertible_rescaling import iirn_x4, save_checkpoint
from invertible_rescaling.cli import main
from invertible_rescaling.testing import randomize


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def tiny_weights(path: Path, seed: int = 0) -> Path:
    """A checkpoint whose LR and SR differ from plain means of pixels, and which takes milliseconds."""
    save_checkpoint(randomize(iirn_x4(blocks=1, subnet={"name": "crdb", "growth": 4}), 0.2, seed), path)
    return path


def run(capsys, *arguments: object) -> Result:
    """In this process; every line on standard error must be a note or an error."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert all(line.startswith(("note: ", "error: ")) for line in said.err.splitlines()), said.err
    return Result(code, said.out, said.err)


def start(*arguments: object, **options) -> subprocess.Popen:
    """In a process of its own, on one thread: more would wait for each other on a busy machine."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "invertible_rescaling.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **(pipes | options))


def run_apart(*arguments: object, **options) -> Result:
    with start(*arguments, **options) as process:
        out, err = process.communicate(timeout=300)
    return Result(process.returncode, out, err)


def photograph(height: int, width: int, channels: int = 3, seed: int = 0, deep: bool = False) -> np.ndarray:
    """Smooth pixels with some noise, (H, W) or (H, W, channels), uint8 or uint16."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (3 + c) + c) + np.cos(y / (4 + c)) for c in range(channels)]
    values = 0.5 + np.stack(waves, axis=2) / 5 + generator.uniform(-0.05, 0.05, (height, width, channels))
    pixels = np.rint(values * 65535).astype(np.uint16) if deep else np.rint(values * 255).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def folder_of(path: Path, count: int, side: int = 24) -> Path:
    for index in range(count):
        save(path / f"{index:04d}.png", photograph(side, side + 1, seed=index))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def cells_of(out: str) -> list[list[str]]:
    """Of the Markdown tables in what was said."""
    rows = [line for line in out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
