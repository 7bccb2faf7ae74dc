"""Writing files so that a reader, or a crash, never meets half of one."""

import os
import secrets
from pathlib import Path

__all__ = ["write_atomically"]


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
