"""From the arguments to pairs of files: what is read, and where what comes of it goes."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from invertible_rescaling.errors import ConfigError, RescalingError
from invertible_rescaling.files import remove_leftovers
from invertible_rescaling.images import PICTURE_SUFFIXES, SUFFIXES, read_picture
from invertible_rescaling.images.formats import UNREAD_SUFFIXES
from invertible_rescaling.pipeline.record import record_of

__all__ = ["FileTask", "Plan", "plan"]

_OF_FORMATS = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp", ".jpg": "jpg", ".jpeg": "jpg"}
_WRITTEN = {"JPEG": "jpg", "TIFF": "tiff", "WebP": "webp"}
_OF_PICTURES = PICTURE_SUFFIXES | UNREAD_SUFFIXES


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
        unread: pictures in folders, by their suffix, of formats that are not read.
        others: how many other files in folders are no pictures by their suffix.
        links: links to folders, which are not followed.
        kind: the format of what is made, or ``"original"``.
    """

    tasks: list[FileTask] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    others: int = 0
    links: list[Path] = field(default_factory=list)
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
        kind: the format; by default that of the output's suffix, or PNG. ``"original"`` is that of the file
            that an LR picture was made of, as it says, and PNG where that is not written.
        keep_suffix: name what comes of ``a.jpg`` ``a.jpg.png``.

    Raises:
        ConfigError: two inputs would make the same output, an output is an input, or the output is named like
            a picture that cannot be written.

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
    if len(inputs) == 1 and not inputs[0].is_dir() and suffix in _OF_FORMATS and not output.is_dir():
        if kind not in (None, _OF_FORMATS[suffix]):
            raise ConfigError(f"--format {kind} does not go with the name {output}; leave one out")
        found = Plan(kind=_OF_FORMATS[suffix])
        if inputs[0].is_file():
            found.tasks.append(FileTask(inputs[0], output))
        else:
            _add(found, inputs[0], None, keep_suffix)  # which says what is wrong with it
    else:
        if not output.is_dir() and (suffix in _OF_PICTURES or str(output) == "-"):
            raise ConfigError(_no_folder(output))
        if output.exists() and not output.is_dir():
            raise ConfigError(f"{output} is a file, where a folder is needed; name another OUT")
        found = Plan(kind=kind or "png")
        for given in inputs:
            _add(found, given, output, keep_suffix)
    _check(found)
    return found


def _no_folder(output: Path) -> str:
    if str(output) == "-":
        return "nothing is written to standard output; name a file or a folder"
    if output.suffix.lower() in _OF_FORMATS:
        return f"{output} is a picture by its name, where a folder is needed; name another OUT"
    return f"{output.suffix} files cannot be written; known: {', '.join(sorted(_OF_FORMATS))}"


def look(inputs: Sequence[Path]) -> Plan:
    """All pictures in files and folders, each once, to be read and nothing made of them."""
    found = Plan()
    for given in inputs:
        _add(found, given, None, False)
    found.tasks = list({task.source: task for task in found.tasks}.values())
    return found


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
    kind = _original(source) if found.kind == "original" else found.kind
    found.tasks.append(FileTask(source, folder / (name + SUFFIXES[kind])))


def _original(source: Path) -> str:
    """The format of the file that LR was made of, if it is one that is written."""
    try:
        record = record_of(read_picture(source))
    except (RescalingError, OSError):  # which the task itself will say
        return "png"
    return _WRITTEN.get(record.source_format, "png") if record else "png"


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
        found.links += [Path(root, name) for name in folders if os.path.islink(os.path.join(root, name))]
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in PICTURE_SUFFIXES:
                files.append(Path(root, name))
            elif suffix in UNREAD_SUFFIXES:
                found.unread.append(Path(root, name))
            else:
                found.others += 1
    found.unread.sort()
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
