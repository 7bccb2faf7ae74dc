"""Names, messages and files."""

from collections.abc import Sequence
from pathlib import Path

from invertible_rescaling.files import write_atomically


def tell_apart(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many folders before it as it takes to tell them apart."""
    parts = [path.absolute().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def write_json(path: Path, text: str) -> None:
    """Write beside the final name and rename, so that an older file is kept if this fails."""
    if path.exists() and not path.is_file():  # a pipe or device
        path.write_text(text, encoding="utf-8")
        return
    write_atomically(path, text.encode())
