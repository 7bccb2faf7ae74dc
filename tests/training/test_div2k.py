"""The downloader of DIV2K against a server on the loopback interface."""

import errno
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from invertible_rescaling.training import div2k
from invertible_rescaling.training.div2k import DIV2K_ARCHIVES, Archive, DownloadError, download_div2k

NAME = "DIV2K_valid_HR"
PNGS = {f"{NAME}/{number:04d}.png": bytes([number]) * 3000 for number in (1, 2, 3)}


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]
    broken: list[int]  # answers that are to break off

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if not self.broken:
            super().do_GET()
            return
        self.broken.pop()
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"PK")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Archive, type[Handler]]]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in PNGS.items():
            file.writestr(name, data)
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / f"{NAME}.zip").write_bytes(content.getvalue())
    handler: Any = type("Bound", (Handler,), {"asked": [], "broken": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{NAME}.zip"
        yield Archive(url, hashlib.sha256(content.getvalue()).hexdigest(), images=3), handler
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def assert_unpacked(root: Path) -> None:
    assert {f"{NAME}/{path.name}": path.read_bytes() for path in (root / NAME).iterdir()} == PNGS
    assert [path.name for path in root.iterdir()] == [NAME]


def test_the_official_archives_are_named_as_on_the_server() -> None:
    assert [archive.name for archive in DIV2K_ARCHIVES] == ["DIV2K_train_HR.zip", "DIV2K_valid_HR.zip"]
    assert [archive.images for archive in DIV2K_ARCHIVES] == [800, 100]
    assert {len(archive.sha256) for archive in DIV2K_ARCHIVES} == {64}


def test_a_download_leaves_the_images_and_is_made_once(root: Path, served, capsys) -> None:
    archive, handler = served
    assert download_div2k(root, archives=[archive], progress=True) == root
    assert_unpacked(root)
    assert "100%" in capsys.readouterr().err
    download_div2k(root, archives=[archive])
    assert len(handler.asked) == 1


def test_a_connection_that_breaks_off_is_tried_again(root: Path, served) -> None:
    archive, handler = served
    handler.broken.extend([1, 1])
    download_div2k(root, archives=[archive])
    assert_unpacked(root)
    assert len(handler.asked) == 3


def test_a_server_that_fails_for_good_is_one_error(root: Path, served) -> None:
    archive, handler = served
    handler.broken.extend([1] * 9)
    for fails in (
        archive,
        replace(archive, url=archive.url.replace(NAME, "other")),
        replace(archive, url=f"http://127.0.0.1:9/{NAME}.zip"),
        replace(archive, sha256="0" * 64),
    ):
        with pytest.raises(DownloadError, match=r"could not be fetched in 5 attempts: .*wget -c -P") as error:
            download_div2k(root, archives=[fails])
        assert len(str(error.value).splitlines()) == 1
        assert list(root.iterdir()) == []
        handler.broken.clear()


def test_an_archive_fetched_by_other_means_is_used(root: Path, served, tmp_path: Path) -> None:
    archive, handler = served
    root.mkdir()
    whole = (tmp_path / "server" / archive.name).read_bytes()
    (root / archive.name).write_bytes(whole[:2000])
    with pytest.raises(DownloadError, match="is not the official archive, or a part of it"):
        download_div2k(root, archives=[archive])
    assert (root / archive.name).read_bytes() == whole[:2000]
    (root / archive.name).write_bytes(whole)
    download_div2k(root, archives=[archive])
    assert_unpacked(root)
    assert handler.asked == []


def test_a_folder_that_is_not_complete_is_left_alone(root: Path, served) -> None:
    (root / NAME).mkdir(parents=True)
    (root / NAME / "0001.png").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="holds 1 of the 3 images"):
        download_div2k(root, archives=[served[0]])
    assert (root / NAME / "0001.png").read_bytes() == b"mine"


def test_an_empty_folder_and_a_killed_unpacking_are_no_obstacle(root: Path, served) -> None:
    (root / NAME).mkdir(parents=True)
    left_over = root / f".{NAME}.unpacking" / NAME
    left_over.mkdir(parents=True)
    (left_over / "0001.png").write_bytes(b"half")
    download_div2k(root, archives=[served[0]])
    assert_unpacked(root)


def test_an_archive_of_other_images_leaves_nothing(root: Path, served) -> None:
    with pytest.raises(DownloadError, match=r"holds 3 of the 4 images"):
        download_div2k(root, archives=[replace(served[0], images=4)])
    assert not (root / NAME).exists()


def test_a_disk_that_fills_up_while_unpacking_keeps_the_archive(root: Path, served, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive, handler = served
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "extractall", full)
        with pytest.raises(DownloadError, match="No space left on device; make room"):
            download_div2k(root, archives=[archive])
    assert [path.name for path in root.iterdir()] == [archive.name]
    download_div2k(root, archives=[archive])
    assert_unpacked(root)
    assert len(handler.asked) == 1


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path, served) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"cannot write to .*file.*choose another folder"):
        download_div2k(tmp_path / "file" / "data", archives=[served[0]])


def test_a_server_that_stalls_is_given_up(root: Path, served, monkeypatch) -> None:
    archive, handler = served
    monkeypatch.setattr(div2k, "_TIMEOUT", 0.2)
    monkeypatch.setattr(div2k, "_ATTEMPTS", 2)
    stop = threading.Event()
    monkeypatch.setattr(handler, "do_GET", lambda self: stop.wait(5))
    with pytest.raises(DownloadError, match=r"2 attempts: .*timed out"):
        download_div2k(root, archives=[archive])
    stop.set()
