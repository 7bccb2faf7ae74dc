"""The downloader against a server on the loopback interface that misbehaves as real ones do."""

import errno
import hashlib
import io
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from invertible_rescaling.training import div2k as download
from invertible_rescaling.training.div2k import DIV2K_ARCHIVES, Archive, DownloadError, download_div2k

NAME = "DIV2K_valid_HR"
PNGS = {f"{NAME}/{number:04d}.png": bytes([number]) * 30_000 for number in (1, 2, 3)}


def zip_of(members: dict[str, bytes], extra: zipfile.ZipInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{NAME}/", b"")
        for name, content in members.items():
            file.writestr(name, content)
        if extra is not None:
            file.writestr(extra, b"/etc/passwd")
    return buffer.getvalue()


Behaviour = Callable[["Handler", bytes], None]


@dataclass
class Seen:
    range: str | None
    sent: int = 0


@dataclass
class Service:
    """What the server holds, how it answers request after request (at last ``serve``), what it has seen."""

    content: bytes
    plan: list[Behaviour] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def archive(self) -> Archive:
        url = f"http://127.0.0.1:{self.port}/cvl/{NAME}.zip"
        return Archive(url, len(self.content), hashlib.sha256(self.content).hexdigest(), images=3)


class Handler(BaseHTTPRequestHandler):
    service: Service

    def do_GET(self) -> None:
        self.seen = Seen(self.headers.get("Range"))
        self.service.seen.append(self.seen)
        behaviour = self.service.plan.pop(0) if self.service.plan else serve
        behaviour(self, self.service.content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass

    def offset(self) -> int:
        return int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, data: bytes) -> None:
        self.seen.sent += len(data)
        self.wfile.write(data)
        self.wfile.flush()


def serve(handler: Handler, content: bytes, upto: int | None = None) -> None:
    """Answer as a proper server; with ``upto``, break off there."""
    start = handler.offset()
    length = str(len(content) - start)
    if start:
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.head(206, Content_Length=length, Content_Range=span)
    else:
        handler.head(200, Content_Length=length)
    handler.body(content[start:upto])


def without_ranges(handler: Handler, content: bytes, upto: int | None = None) -> None:
    handler.head(200, Content_Length=str(len(content)))
    handler.body(content[:upto])


def stall(handler: Handler, content: bytes, upto: int) -> None:
    serve(handler, content, upto)
    handler.service.stop.wait(5)


def garbage(handler: Handler, content: bytes) -> None:
    handler.body(b"\x00\x01 this is no HTTP\r\n\r\n")


def login_page(handler: Handler, content: bytes) -> None:
    handler.head(200, Content_Length="20", Content_Type="text/html")
    handler.body(b"<html>log in!</html>")


def endless(handler: Handler, content: bytes) -> None:
    handler.head(200)
    handler.body(content + content)


def other_range(handler: Handler, content: bytes) -> None:
    handler.head(206, Content_Length="7", Content_Range=f"bytes 0-6/{len(content)}")
    handler.body(content[:7])


def status(handler: Handler, content: bytes, code: int) -> None:
    handler.head(code, Content_Length="0")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have left."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("no_proxy", "*")
    service = Service(zip_of(PNGS))
    handler = type("BoundHandler", (Handler,), {"service": service})
    with Server(("127.0.0.1", 0), handler) as server:
        service.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield service
        service.stop.set()
        server.shutdown()
        thread.join()


def fetch(folder: Path, service: Service, archive: Archive | None = None, **options: Any) -> Path:
    options = {"timeout": 5.0, "attempts": 3, "backoff": 0.0} | options
    return download_div2k(folder, archives=[archive or service.archive], **options)


def part_of(folder: Path) -> Path:
    return folder / f"{NAME}.zip.part"


def assert_unpacked(folder: Path) -> None:
    found = {f"{NAME}/{path.name}": path.read_bytes() for path in (folder / NAME).iterdir()}
    assert found == PNGS
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [NAME]
    assert not list(folder.glob(".*unpacking"))


def assert_nothing_unpacked(folder: Path) -> None:
    assert not list(folder.rglob("*.png"))
    assert not list(folder.glob(".*unpacking"))


def test_the_official_archives_are_named_as_on_the_server() -> None:
    assert [(a.name, a.folder, a.images) for a in DIV2K_ARCHIVES] == [
        ("DIV2K_train_HR.zip", "DIV2K_train_HR", 800),
        ("DIV2K_valid_HR.zip", "DIV2K_valid_HR", 100),
    ]
    assert all(len(bytes.fromhex(a.sha256)) == 32 for a in DIV2K_ARCHIVES)


def test_a_fresh_download_leaves_the_images_and_reports_progress(tmp_path: Path, service: Service) -> None:
    reports: list[tuple[str, int, int]] = []
    folder = fetch(tmp_path / "new" / "data", service, progress=lambda *report: reports.append(report))
    assert folder == tmp_path / "new" / "data"
    assert_unpacked(folder)
    assert [seen.range for seen in service.seen] == [None]
    size = len(service.content)
    assert reports[0] == (f"{NAME}.zip", 0, size)
    assert reports[-1] == (f"{NAME}.zip", size, size)
    assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)


def test_a_second_call_fetches_nothing_and_writes_nothing(tmp_path: Path, service: Service) -> None:
    fetch(tmp_path, service)
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    fetch(tmp_path, service)
    assert len(service.seen) == 1
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before


def test_a_broken_connection_is_continued_where_it_ended(tmp_path: Path, service: Service) -> None:
    service.plan = [partial(serve, upto=40_000)]
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert service.seen == [Seen(None, 40_000), Seen("bytes=40000-", len(service.content) - 40_000)]


def test_headway_starts_the_count_of_failures_afresh(tmp_path: Path, service: Service) -> None:
    service.plan = [partial(serve, upto=end) for end in (10_000, 20_000, 30_000, 40_000, 50_000)]
    fetch(tmp_path, service, attempts=2)
    assert_unpacked(tmp_path)
    assert len(service.seen) == 6


def test_a_later_call_continues_an_interrupted_one(tmp_path: Path, service: Service) -> None:
    service.plan = [partial(serve, upto=30_000), partial(status, code=503)]
    with pytest.raises(DownloadError, match=r"30000 of \d+ bytes are kept.*try again, which continues"):
        fetch(tmp_path, service, attempts=2)
    assert part_of(tmp_path).read_bytes() == service.content[:30_000]
    reports: list[int] = []
    fetch(tmp_path, service, progress=lambda name, done, total: reports.append(done))
    assert_unpacked(tmp_path)
    assert reports[0] == 30_000
    assert service.seen[-1] == Seen("bytes=30000-", len(service.content) - 30_000)


def test_a_whole_part_file_needs_no_request(tmp_path: Path, service: Service) -> None:
    part_of(tmp_path).write_bytes(service.content)
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert service.seen == []


def test_a_part_file_longer_than_the_archive_is_begun_anew(tmp_path: Path, service: Service) -> None:
    part_of(tmp_path).write_bytes(bytes(len(service.content) + 1))
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert [seen.range for seen in service.seen] == [None]


def test_a_server_without_ranges_begins_anew(tmp_path: Path, service: Service) -> None:
    part_of(tmp_path).write_bytes(b"x" * 50_000)
    service.plan = [without_ranges]
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert service.seen == [Seen("bytes=50000-", len(service.content))]


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(tmp_path: Path, service: Service) -> None:
    service.plan = [partial(without_ranges, upto=20_000)] * 9
    with pytest.raises(DownloadError, match=r"3 attempts: the connection ended after 20000 of"):
        fetch(tmp_path, service)
    assert len(service.seen) == 3  # bytes that were there before are no headway


def test_a_refused_range_begins_anew(tmp_path: Path, service: Service) -> None:
    part_of(tmp_path).write_bytes(service.content[:50_000])
    service.plan = [partial(status, code=416)]
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert [seen.range for seen in service.seen] == ["bytes=50000-", None]


def test_another_range_than_asked_for_begins_anew(tmp_path: Path, service: Service) -> None:
    part_of(tmp_path).write_bytes(service.content[:50_000])
    service.plan = [other_range]
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert [seen.range for seen in service.seen] == ["bytes=50000-", None]


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (garbage, "no HTTP"),
        (login_page, r"offers 20 bytes \(text/html\)"),
        (endless, "sent more than"),
        (partial(status, code=503), "HTTP 503"),
        (partial(status, code=429), "HTTP 429"),
        (partial(serve, upto=0), "ended after 0 of"),
    ],
    ids=["garbage", "login page", "endless", "503", "429", "empty"],
)
def test_what_a_server_may_recover_from_is_tried_again_and_given_up_in_the_end(
    behaviour: Behaviour, says: str, tmp_path: Path, service: Service
) -> None:
    service.plan = [behaviour, behaviour]
    fetch(tmp_path / "good", service)
    assert_unpacked(tmp_path / "good")

    service.plan, service.seen[:] = [behaviour] * 9, []
    with pytest.raises(DownloadError, match=says) as caught:
        fetch(tmp_path / "bad", service)
    assert len(service.seen) == 3
    assert service.archive.url in str(caught.value)
    assert "try again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_nothing_unpacked(tmp_path / "bad")


def test_garbage_leaves_the_part_as_it_was(tmp_path: Path, service: Service) -> None:
    part_of(tmp_path).write_bytes(service.content[:50_000])
    service.plan = [garbage, login_page]
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert service.seen[-1] == Seen("bytes=50000-", len(service.content) - 50_000)


def test_a_stalled_connection_is_given_up_and_continued(tmp_path: Path, service: Service) -> None:
    service.plan = [partial(stall, upto=40_000)]
    fetch(tmp_path, service, timeout=0.2)
    assert_unpacked(tmp_path)
    assert [seen.range for seen in service.seen] == [None, "bytes=40000-"]


def test_a_server_that_only_stalls_gives_one_error(tmp_path: Path, service: Service) -> None:
    service.plan = [partial(stall, upto=0)] * 2
    with pytest.raises(DownloadError, match=r"no data for 0\.1 s"):
        fetch(tmp_path, service, timeout=0.1, attempts=2)


def test_a_port_where_nobody_listens_gives_one_error(tmp_path: Path, service: Service) -> None:
    archive = replace(service.archive, url=f"http://127.0.0.1:1/{NAME}.zip")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1/.*refused"):
        fetch(tmp_path, service, archive)


def test_the_pauses_double(tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    service.plan = [partial(status, code=500)] * 9
    with pytest.raises(DownloadError, match="4 attempts"):
        fetch(tmp_path, service, attempts=4, backoff=0.5)
    assert pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_missing_file_is_an_error_at_once(code: int, tmp_path: Path, service: Service) -> None:
    service.plan = [partial(status, code=code)]
    with pytest.raises(DownloadError, match=rf"{NAME}\.zip could not be fetched: .* HTTP {code}.*browser"):
        fetch(tmp_path, service)
    assert len(service.seen) == 1


def test_a_wrong_hash_deletes_the_file_and_unpacks_nothing(tmp_path: Path, service: Service) -> None:
    archive = replace(service.archive, sha256="0" * 64)
    with pytest.raises(DownloadError, match=r"not the official archive \(its SHA-256.*has been deleted"):
        fetch(tmp_path, service, archive)
    assert not list(tmp_path.glob(f"{NAME}*"))
    assert_nothing_unpacked(tmp_path)
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)


def test_an_archive_fetched_by_other_means_is_used(tmp_path: Path, service: Service) -> None:
    (tmp_path / f"{NAME}.zip").write_bytes(service.content)
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert service.seen == []


def test_a_foreign_file_under_the_archives_name_is_left_alone(tmp_path: Path, service: Service) -> None:
    (tmp_path / f"{NAME}.zip").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"not the official archive \(it has 4 bytes.*move it away"):
        fetch(tmp_path, service)
    assert (tmp_path / f"{NAME}.zip").read_bytes() == b"mine"
    assert service.seen == []


def test_a_folder_that_is_not_complete_is_left_alone(tmp_path: Path, service: Service) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "0001.png").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="holds 1 of the 3 images"):
        fetch(tmp_path, service)
    assert (tmp_path / NAME / "0001.png").read_bytes() == b"mine"
    assert service.seen == []


def test_an_empty_folder_and_a_killed_unpacking_are_no_obstacle(tmp_path: Path, service: Service) -> None:
    (tmp_path / NAME).mkdir()
    left_over = tmp_path / f".{NAME}.unpacking" / NAME
    left_over.mkdir(parents=True)
    (left_over / "0001.png").write_bytes(b"half")
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        f"{NAME}/../../evil.png",
        "/evil.png",
        "..\\evil.png",
        "C:/evil.png",
    ],
)
def test_a_member_that_leads_out_of_the_folder_is_refused(
    name: str, tmp_path: Path, service: Service
) -> None:
    service.content = zip_of(PNGS | {name: b"evil"})
    with pytest.raises(DownloadError, match=r"unsafe member .*leads out of the folder"):
        fetch(tmp_path / "a" / "b", service)
    assert not list(tmp_path.rglob("*evil*"))
    assert_nothing_unpacked(tmp_path)


def test_a_link_is_refused(tmp_path: Path, service: Service) -> None:
    link = zipfile.ZipInfo(f"{NAME}/0004.png")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    service.content = zip_of(PNGS, link)
    with pytest.raises(DownloadError, match=r"unsafe member .*0004\.png.*link"):
        fetch(tmp_path, service)
    assert_nothing_unpacked(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"this is no zip file", "cannot be unpacked"),
        (zip_of({"elsewhere/0001.png": b""}), "holds no DIV2K_valid_HR with 3 PNG images"),
        (zip_of(PNGS).replace(b"\x02" * 30_000, b"\x02" * 29_999 + b"\x00"), "Bad CRC"),
    ],
    ids=["no zip", "other contents", "damaged member"],
)
def test_an_archive_that_is_none_gives_one_error(
    content: bytes, says: str, tmp_path: Path, service: Service
) -> None:
    service.content = content
    with pytest.raises(DownloadError, match=says):
        fetch(tmp_path, service)
    assert_nothing_unpacked(tmp_path)


def test_too_little_room_is_noticed_before_anything_is_fetched(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="GB are free; make room"):
        fetch(tmp_path, service)
    assert service.seen == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_gives_one_error_and_no_further_attempt(
    tmp_path: Path, service: Service
) -> None:
    part_of(tmp_path).symlink_to("/dev/full")
    with pytest.raises(DownloadError, match="No space left on device; make room"):
        fetch(tmp_path, service)
    assert len(service.seen) == 1


def test_a_disk_that_fills_up_while_unpacking_keeps_the_archive(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        with pytest.raises(DownloadError, match="No space left on device; make room"):
            fetch(tmp_path, service)
    assert_nothing_unpacked(tmp_path)
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
    assert len(service.seen) == 1


def test_a_folder_that_cannot_be_made_gives_one_error(tmp_path: Path, service: Service) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"cannot write to .*file.*choose another folder"):
        fetch(tmp_path / "file" / "data", service)
    with pytest.raises(DownloadError, match=r"cannot write to .*file.*choose another folder"):
        fetch(tmp_path / "file", service)


def test_a_folder_without_permission_gives_one_error(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DownloadError, match="Permission denied; make it writable"):
        fetch(tmp_path, service)


def test_a_second_process_is_kept_out(tmp_path: Path, service: Service) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".download.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process is downloading"):
            fetch(tmp_path, service)
    fetch(tmp_path, service)
    assert_unpacked(tmp_path)
