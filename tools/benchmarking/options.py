"""What every part of the benchmark is told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The command line; see ``--help`` for what each means."""

    models: tuple[str, ...]
    size: tuple[int, int]
    repeats: int
    device: str
    precision: str
    compile: bool
    engines: tuple[str, ...]
    official: Path | None
    batch: int
    patch: int
    blocks: int
    depths: tuple[int, ...]
    modes: tuple[str, ...]
    side: int
    tile: int
