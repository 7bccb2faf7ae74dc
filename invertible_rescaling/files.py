"""Atomic writing of files, and their hashes."""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

__all__ = ["remove_leftovers", "sha256_of", "write_atomically"]

_TEMPORARY = re.compile(r"\.(?P<key>[0-9a-f]{16})\.(?P<pid>\d+)-[0-9a-f]{8}\.tmp")


def sha256_of(path: Path) -> str:
    """Hash a whole file, in hexadecimal.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from invertible_rescaling.files import sha256_of
        >>> len(sha256_of(Path(__file__)))
        64
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk and rename it into place.

    Args:
        path: the final name; an existing file is replaced in one step.
        content: all of the file.

    Raises:
        OSError: the folder is missing, not writable or full; ``path`` is then as it was.

    Example:
        >>> import tempfile, pathlib
        >>> from invertible_rescaling.files import write_atomically
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(pathlib.Path(folder, "a.txt"), b"all or nothing")
        ...     [file.name for file in pathlib.Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(temporary_name(path.name, os.getpid()))
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(name: str, pid: int) -> str:
    """A name for a file while it is written, short whatever its own is: file systems allow 255 bytes."""
    return f".{_key(name)}.{pid}-{secrets.token_hex(4)}.tmp"


def _key(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove what processes that were killed in :func:`write_atomically` have left of some files.

    Args:
        folder: where the files are; it need not exist.
        names: of the files. What a process that still runs is writing is left to it.

    Raises:
        OSError: the folder cannot be read, or is not writable.
    """
    if not folder.is_dir():
        return
    keys = set(map(_key, names))
    for path in list(folder.iterdir()):
        found = _TEMPORARY.fullmatch(path.name)
        if found and found["key"] in keys and not _runs(int(found["pid"])):
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, OverflowError):
        if pid == os.getpid():
            return False  # which writes nothing while it removes
        with contextlib.suppress(PermissionError):  # another user's
            os.kill(pid, 0)
        return True
    return False
