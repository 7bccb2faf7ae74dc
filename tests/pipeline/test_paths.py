"""From folders to pairs of files, and what is told of the rest."""

import os
from pathlib import Path

import pytest

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.images import PICTURE_SUFFIXES
from invertible_rescaling.pipeline import plan
from tests.shell import folder_of, photograph, run, save, tiny_weights


def test_what_is_left_out_is_named(tmp_path, capsys) -> None:
    folder = folder_of(tmp_path / "in", 2)
    for name in ("a.CR2", "b.cr2", "c.psd", "notes.txt", ".hidden.cr2"):
        (folder / name).touch()
    folder_of(tmp_path / "elsewhere", 1)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    weights = tiny_weights(tmp_path / "tiny.safetensors")
    found = run(capsys, "downscale", folder, tmp_path / "out", "--weights", weights)
    assert (found.code, found.out.startswith("2 done in"), "; 1 other files left out" in found.out) == (
        0,
        True,
        True,
    )
    assert found.err.splitlines() == [
        f"note: .cr2 files are not read, and are left out ({folder / 'a.CR2'}, {folder / 'b.cr2'})",
        f"note: .psd files are not read, and are left out ({folder / 'c.psd'})",
        f"note: links to folders are not followed ({folder / 'link'})",
    ]
    for path in folder.glob("*.png"):
        path.unlink()
    found = run(capsys, "downscale", folder, tmp_path / "out", "--weights", weights)
    assert (found.code, "no pictures were found (3 are of formats that are not read)" in found.err) == (
        2,
        True,
    )


def test_every_format_that_is_read_is_taken_from_folders(tmp_path) -> None:
    for number, suffix in enumerate(sorted(PICTURE_SUFFIXES)):
        (tmp_path / f"{number}{suffix}").touch()
    assert len(plan([tmp_path], tmp_path / "out").tasks) == len(PICTURE_SUFFIXES)


def test_a_name_of_255_bytes_is_no_hindrance(tmp_path, capsys) -> None:
    name = "写真" * 41 + "12345.png"
    assert len(os.fsencode(name)) == 255
    folder = tmp_path / "in"
    save(folder / name, photograph(8, 8))
    weights = tiny_weights(tmp_path / "tiny.safetensors")
    found = run(capsys, "downscale", folder, tmp_path / "out", "--weights", weights)
    assert (found.code, os.listdir(tmp_path / "out")) == (0, [name])
    with pytest.raises(OSError, match="File name too long"):
        write_atomically(tmp_path / f"a{name}", b"")  # which is no legal name itself


def test_a_folder_may_be_named_like_a_picture_if_it_is_there(tmp_path) -> None:
    folder_of(tmp_path / "in", 1)
    with pytest.raises(ConfigError, match=r"\.bmp files cannot be written"):
        plan([tmp_path / "in"], tmp_path / "out.bmp")
    (tmp_path / "out.bmp").mkdir()
    assert plan([tmp_path / "in"], tmp_path / "out.bmp").tasks[0].target == tmp_path / "out.bmp" / "0000.png"
    assert plan([Path("nowhere.png")], tmp_path / "a.png").failures
