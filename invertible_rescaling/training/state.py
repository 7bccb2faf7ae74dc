"""The state of a run on the disk: always complete, in small files, checked when it is read.

``state/step-00001000/`` holds ``000.safetensors``, ``001.safetensors``, ... and ``state.json`` with the hash
of each. A folder gets its final name after all in it has reached the disk, so one that can be seen is whole,
whatever moment the process was killed at.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from invertible_rescaling.errors import CheckpointError, RescalingError
from invertible_rescaling.files import write_atomically

_SHARD_BYTES = 15 * 10**6  # a file is to stay below 16 MB; with this iirn_x4 takes three
_KEEP = 2
_NAME = re.compile(r"step-(\d{8})(?:-(\d+))?")


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
    try:
        return _save_state(folder, step, tensors, facts)
    except OSError as error:
        for partial in folder.glob(".*.tmp"):
            shutil.rmtree(partial, ignore_errors=True)
        kept = states(folder)
        then = f"goes on after step {kept[-1][0]}" if kept else "begins anew, as nothing was saved before"
        raise StateError(
            f"the state of step {step} cannot be written to {str(folder)!r} ({error.strerror or error}); "
            f"make room there, and the same command {then}"
        ) from error


def _save_state(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    final = _free_name(folder, step)
    partial = folder / f".{final.name}.{os.getpid()}.tmp"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    hashes = {}
    for number, names in enumerate(_shards(tensors)):
        content = save({name: tensors[name].detach().cpu().contiguous() for name in names})
        file = f"{number:03d}.safetensors"
        hashes[file] = hashlib.sha256(content).hexdigest()
        _write(partial / file, content)
    _write(partial / "state.json", json.dumps({"step": step, "files": hashes, "facts": facts}).encode())
    _flush_folder(partial)
    partial.rename(final)
    _flush_folder(folder)
    for _, _, old in states(folder)[:-_KEEP]:
        _remove(old)
    return final


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
            return step, *_read(path)
        except (OSError, ValueError, KeyError, CheckpointError) as error:
            complain(f"{path} is damaged and passed over: {error}")
    if found:
        raise CheckpointError(f"no state in {folder} can be read; start again with another --out")
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    record = json.loads((path / "state.json").read_text())
    tensors: dict[str, Tensor] = {}
    for file, expected in record["files"].items():
        content = (path / file).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise CheckpointError(f"{file} does not match its hash")
        tensors.update(load(content))
    return tensors, record["facts"]


def _free_name(folder: Path, step: int) -> Path:
    """A step that is saved again goes beside what it replaces, which is there until the new one is whole."""
    taken = [attempt for known, attempt, _ in states(folder) if known == step]
    return folder / (f"step-{step:08d}-{max(taken) + 1}" if taken else f"step-{step:08d}")


def states(folder: Path) -> list[tuple[int, int, Path]]:
    """List the states in a run's ``state`` folder: step, attempt and path, oldest first."""
    if not folder.is_dir():
        return []
    found = ((match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    return sorted((int(match[1]), int(match[2] or 0), path) for match, path in found)


def _shards(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Group names so that each group fits into one file."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        weight = tensor.numel() * tensor.element_size()
        if shards[-1] and size + weight > _SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += weight
    return shards


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are durable without it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Hide before deleting, so that a half-deleted state is never taken for one."""
    hidden = path.with_name(f".{path.name}.old.tmp")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


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
