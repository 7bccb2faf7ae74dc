"""From the arguments to pairs of files: what is read, and where what comes of it goes."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.files import remove_leftovers
from invertible_rescaling.images import PICTURE_SUFFIXES, SUFFIXES

__all__ = ["FileTask", "Plan", "plan"]

_OF_FORMATS = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp", ".jpg": "jpg", ".jpeg": "jpg"}


@dataclass(frozen=True)
class FileTask:
    """One picture's file, and the file to make of it.

    Attributes:
        source: a picture of any kind that can be read.
        target: where what comes of it goes.
    """

    source: Path
    target: Path


@dataclass
class Plan:
    """All tasks, in the order of their files' names.

    Attributes:
        tasks: what to do.
        failures: what could not be read, and why.
        others: how many files in folders are no pictures by their suffix.
        kind: the format of what is made.
    """

    tasks: list[FileTask] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)
    others: int = 0
    kind: str = "png"

    def remove_leftovers(self) -> None:
        """Remove what runs that were killed left half-written beside the targets."""
        names: dict[Path, set[str]] = defaultdict(set)
        for task in self.tasks:
            names[task.target.parent].add(task.target.name)
        for folder, those in names.items():
            with contextlib.suppress(OSError):  # the pictures themselves will say what is wrong
                remove_leftovers(folder, those)


def plan(inputs: Sequence[Path], output: Path, kind: str | None = None, keep_suffix: bool = False) -> Plan:
    """Pair every input with its output.

    A single file may be given a file as its output; all else goes into a folder, where the structure below
    each folder that was given is kept. Hidden files, links to folders, and whatever lies in the output
    folder, are left out.

    Args:
        inputs: files and folders.
        output: a file or a folder, which need not exist.
        kind: the format; by default that of the output's suffix, or PNG.
        keep_suffix: name what comes of ``a.jpg`` ``a.jpg.png``.

    Raises:
        ConfigError: two inputs would make the same output, or an output is an input.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from invertible_rescaling.pipeline import plan
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.jpg").touch()
        ...     [task.target.name for task in plan([Path(folder)], Path("small"), "png").tasks]
        ['a.png']
    """
    suffix = output.suffix.lower()
    if len(inputs) == 1 and inputs[0].is_file() and suffix in _OF_FORMATS and not output.is_dir():
        if kind not in (None, _OF_FORMATS[suffix]):
            raise ConfigError(f"--format {kind} does not go with the name {output}; leave one out")
        found = Plan([FileTask(inputs[0], output)], kind=_OF_FORMATS[suffix])
    else:
        if output.exists() and not output.is_dir():
            raise ConfigError(f"{output} is a file, where a folder is needed; name another OUT")
        found = Plan(kind=kind or "png")
        for given in inputs:
            _add(found, given, output, keep_suffix)
    _check(found)
    return found


def pictures(inputs: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All pictures in files and folders, and what could not be read, and why."""
    found = Plan()
    for given in inputs:
        _add(found, given, None, False)
    return list(dict.fromkeys(pair.source for pair in found.tasks)), found.failures


def _add(found: Plan, given: Path, output: Path | None, keep_suffix: bool) -> None:
    folder = output or Path()
    if given.is_dir():
        for source in _files_in(given, output, found):
            _pair(found, source, folder / source.relative_to(given).parent, keep_suffix)
    elif given.is_file():
        _pair(found, given, folder, keep_suffix)
    else:
        what = "no picture, but a device or a pipe" if given.exists() else "there is no such file or folder"
        found.failures.append((given, what))


def _pair(found: Plan, source: Path, folder: Path, keep_suffix: bool) -> None:
    name = source.name if keep_suffix else source.stem
    found.tasks.append(FileTask(source, folder / (name + SUFFIXES[found.kind])))


def _files_in(folder: Path, output: Path | None, found: Plan) -> list[Path]:
    inside = None if output is None else os.path.realpath(output)
    if os.path.realpath(folder) == inside:
        raise ConfigError(f"{folder} is IN and OUT; name another folder for what is made")

    def unreadable(error: OSError) -> None:
        found.failures.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    files: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(root, name)) != inside
        )
        pictures = [n for n in names if os.path.splitext(n)[1].lower() in PICTURE_SUFFIXES and n[0] != "."]
        files.extend(Path(root, name) for name in pictures)
        found.others += sum(not name.startswith(".") for name in names) - len(pictures)
    return sorted(files)


def _check(found: Plan) -> None:
    """Refuse what would lose a picture before anything is written."""
    sources = {os.path.realpath(pair.source): pair.source for pair in found.tasks}
    targets: dict[str, Path] = {}
    unique: dict[tuple[str, str], FileTask] = {}
    for pair in found.tasks:
        source, target = os.path.realpath(pair.source), os.path.realpath(pair.target)
        if (source, target) in unique:  # the same file, given twice
            continue
        unique[source, target] = pair
        if target in sources:
            raise ConfigError(f"{pair.target}, to be made of {pair.source}, is an input; name another OUT")
        if target in targets:
            raise ConfigError(
                f"{targets[target]} and {pair.source} would both become {pair.target}; nothing was written. "
                "Pass --keep-suffix if the suffixes differ, or do the folders one by one"
            )
        targets[target] = pair.source
    found.tasks = list(unique.values())
