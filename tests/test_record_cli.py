"""The recording of the command line."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

import record_cli
from tests.shell import photograph, save


@pytest.mark.slow
def test_what_is_shown_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in" / "meadow.png", photograph(40, 60))
    out = tmp_path / "deep" / "out"
    assert record_cli.main(["--images", str(tmp_path / "in"), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    drawn = (out / "cli.svg").read_text()
    words = " ".join(
        "".join(ElementTree.fromstring(drawn).itertext()).replace("\N{NO-BREAK SPACE}", " ").split()
    )
    for command in ("downscale photos small", "upscale small restored", "info small/meadow.png"):
        assert f"$ invertible-rescaling {command}" in words
    for printed in ("1 done in ", "60x40 15x10 ", " photos/meadow.png", "original size: 60x40"):
        assert printed in words
    assert "url(" not in drawn.replace("url(#", "")
    with Image.open(out / "cli_roundtrip.png") as sheet:
        assert sheet.width > 700


def test_what_fails_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    assert record_cli.main(["--images", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("record_cli.py: 'downscale photos small' ended with code 1: ")
    assert "bad.png" in said
    assert not (tmp_path / "out" / "cli.svg").exists()
    assert record_cli.main(["--images", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("record_cli.py: there is no folder at ")
