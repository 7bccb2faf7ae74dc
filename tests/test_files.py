"""Atomic writing: a reader meets the old file or the new one, and nothing in between."""

import errno
import os
from pathlib import Path

import pytest

from invertible_rescaling.files import write_atomically


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("as_type", [Path, str])
def test_a_file_is_made_and_replaced(tmp_path, as_type) -> None:
    path = tmp_path / "a.bin"
    for content in (b"first", b"", b"second, longer"):
        write_atomically(as_type(path), content)
        assert path.read_bytes() == content
    assert _names(tmp_path) == ["a.bin"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path, monkeypatch) -> None:
    path, seen = tmp_path / "a.bin", []
    write_atomically(path, b"old")
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_the_new_file_is_whole_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch) -> None:
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor))[1])

    def recorded(self: Path, target: Path) -> Path:
        calls.append(self.read_bytes())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    write_atomically(tmp_path / "a.bin", b"content")
    assert calls == ["fsync", b"content"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, error, call: str) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")

    def fail(*_args: object) -> None:
        raise error

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.bin"]


def test_a_missing_folder_and_a_folder_in_the_way_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "a.bin", b"x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"x")
    assert _names(tmp_path) == ["taken"]
