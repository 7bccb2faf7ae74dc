"""Files that are written whole or not at all, so that no reader meets half of one, and their hashes."""

import hashlib
import os
import secrets
from pathlib import Path

__all__ = ["sha256_of", "write_atomically"]


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
