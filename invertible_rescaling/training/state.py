"""The state of a run on the disk: one file each, always whole, checked when it is read.

``state/step-00001000.safetensors`` is in the format of checkpoints. It gets its name after all in it has
reached the disk, so that one that can be seen is whole, whatever moment the process was killed at.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from invertible_rescaling.errors import CheckpointError, RescalingError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.weights.checkpoint import read_checkpoint, write_checkpoint

_KEEP = 2
_NAME = re.compile(r"step-(\d{8})(?:-(\d+))?\.safetensors")


class StateError(RescalingError, RuntimeError):
    """A state cannot be written."""


def save_state(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write the state of ``step`` below ``folder`` and remove all but the newest two.

    Args:
        folder: the run's ``state`` folder; made if missing.
        step: how many steps are done.
        tensors: everything that is a tensor, by name.
        facts: everything else, JSON-able.

    Raises:
        StateError: the disk is full, or not to be written on; the states before are as they were.
    """
    path = _free_name(folder, step)
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        write_checkpoint(path, stored, {}, dict(facts))
        _flush(folder)
        for _, _, old in states(folder)[:-_KEEP]:
            old.unlink()
    except OSError as error:
        kept = states(folder)
        then = f"goes on after step {kept[-1][0]}" if kept else "begins anew, as nothing was saved before"
        raise StateError(
            f"the state of step {step} cannot be written to {str(folder)!r} ({error.strerror or error}); "
            f"make room there, and the same command {then}"
        ) from error
    return path


def load_newest_state(
    folder: Path, complain: Callable[[str], None]
) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest state that is whole: step, tensors and facts; ``None`` if there is no state.

    Args:
        folder: the run's ``state`` folder.
        complain: called with one line for each state that is damaged and passed over.

    Raises:
        CheckpointError: there are states, and all are damaged.
    """
    found = states(folder)
    for step, _, path in reversed(found):
        try:
            state = read_checkpoint(path)
        except CheckpointError as error:
            complain(f"passed over: {error}")
        else:
            return step, state.tensors, state.metadata
    if found:
        raise CheckpointError(f"no state in {folder} can be read; start again with another --out")
    return None


def _free_name(folder: Path, step: int) -> Path:
    """A step that is saved again goes beside what it replaces, which is there until the new one is whole."""
    taken = [attempt for known, attempt, _ in states(folder) if known == step]
    again = f"-{max(taken) + 1}" if taken else ""
    return folder / f"step-{step:08d}{again}.safetensors"


def states(folder: Path) -> list[tuple[int, int, Path]]:
    """List the states in a run's ``state`` folder: step, attempt and path, oldest first."""
    if not folder.is_dir():
        return []
    found = ((match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    return sorted((int(match[1]), int(match[2] or 0), path) for match, path in found)


def _flush(folder: Path) -> None:
    """Let a new name reach the disk, before older files go."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are durable without it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fingerprint(images: Sequence[Tensor]) -> str:
    """A short hash of images' sizes and of some of their pixels."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(str(tuple(image.shape)).encode())
        digest.update(image[..., ::17, ::17].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def cut_log(path: Path, step: int) -> None:
    """Drop what the log says of steps after ``step``: they are about to be made again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # a line that a crash cut short
            continue
        made = entry.get("step") if isinstance(entry, dict) else None
        if isinstance(made, int) and made <= step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())
