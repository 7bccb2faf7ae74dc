"""DIV2K's official archives: fetched with resumption, checked against their hashes, unpacked safely.

What arrives is kept as ``NAME.zip.part`` and continued by the next call; a complete archive is verified, then
unpacked beside its final place and renamed, so that a folder ``DIV2K_*_HR`` that exists is a whole one.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from invertible_rescaling.errors import RescalingError

__all__ = ["DIV2K_ARCHIVES", "Archive", "DownloadError", "Progress", "download_div2k"]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(archive_name, bytes_so_far, bytes_in_all)`` whenever data has arrived."""

_CHUNK = 1 << 18
_LONGEST_PAUSE = 60.0
_WORTH_RETRYING = frozenset({408, 425, 429})


class DownloadError(RescalingError):
    """A data set could not be fetched, verified or unpacked."""


class _AttemptFailedError(Exception):
    """One request brought nothing usable; another may."""


@dataclass(frozen=True)
class Archive:
    """A zip file on a server, with one folder of PNG images named as the file is.

    Attributes:
        url: where it is; the last part of the path is its name.
        size: in bytes.
        sha256: of the whole file, in hexadecimal.
        images: how many PNG files the folder in it holds.
    """

    url: str
    size: int
    sha256: str
    images: int

    @property
    def name(self) -> str:
        """The file's name, ``DIV2K_train_HR.zip``."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def folder(self) -> str:
        """The folder it unpacks to, ``DIV2K_train_HR``."""
        return self.name.removesuffix(".zip")


DIV2K_ARCHIVES = (
    Archive(
        url="https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",
        size=3_530_603_713,
        sha256="9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
        images=800,
    ),
    Archive(
        url="https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        size=448_993_893,
        sha256="20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
        images=100,
    ),
)


def download_div2k(
    folder: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    archives: Sequence[Archive] = DIV2K_ARCHIVES,
    timeout: float = 30.0,
    attempts: int = 5,
    backoff: float = 1.0,
) -> Path:
    """Leave ``DIV2K_train_HR/*.png`` and ``DIV2K_valid_HR/*.png`` in a folder; fetch what is not there.

    An archive is deleted once it is unpacked. One that was fetched by other means is used if it lies in the
    folder under its own name. On platforms with ``fcntl`` a second process is kept out of the same folder.

    Args:
        folder: where to; made if missing.
        progress: told what has arrived, see :data:`Progress`.
        archives: what to fetch.
        timeout: seconds without any data after which a connection is given up.
        attempts: failures in a row, without headway, after which the whole is given up.
        backoff: seconds to wait after the first failure; doubled after each further one.

    Returns:
        The folder.

    Raises:
        DownloadError: the server cannot be reached, answers with something else, or keeps breaking off; a
            file has the wrong hash; an archive holds an unsafe member; a folder of that name exists and is
            not complete; the disk is full or the folder cannot be written; another process is at work there.
    """
    root = Path(folder)
    with _local_errors(root):
        missing = [archive for archive in archives if not _is_complete(root / archive.folder, archive)]
        if missing:
            root.mkdir(parents=True, exist_ok=True)
            with _lock(root):
                for archive in missing:
                    if not _is_complete(root / archive.folder, archive):  # no other process was faster
                        fetched = _obtain(archive, root, progress or _silent, timeout, attempts, backoff)
                        _unpack(fetched, root, archive)
    return root


def _silent(name: str, done: int, total: int) -> None:
    pass


# ---- fetching


def _obtain(
    archive: Archive, root: Path, progress: Progress, timeout: float, attempts: int, backoff: float
) -> Path:
    """Return a verified archive on the disk: the one that lies there, or one fetched now."""
    whole, part = root / archive.name, root / f"{archive.name}.part"
    if whole.exists():
        if problem := _find_fault(whole, archive):
            raise DownloadError(
                f"{whole} is not the official archive ({problem}); move it away and try again"
            )
        return whole
    if _size(part) > archive.size:
        part.unlink()
    _check_space(root, archive.size - _size(part) + archive.size, archive.name)
    _fetch(archive, part, progress, timeout, attempts, backoff)
    if problem := _find_fault(part, archive):
        part.unlink()
        raise DownloadError(
            f"what {archive.url} served is not the official archive ({problem}); the file has been deleted "
            "and nothing unpacked. Try again, which starts from the beginning"
        )
    part.replace(whole)
    return whole


def _fetch(
    archive: Archive, part: Path, progress: Progress, timeout: float, attempts: int, backoff: float
) -> None:
    """Request the rest of ``part`` until it is all there; give up after too many failures in a row."""
    failures, furthest = 0, _size(part)
    while _size(part) < archive.size:
        try:
            _request_rest(archive, part, progress, timeout)
            problem = f"the connection ended after {_size(part)} of {archive.size} bytes"
        except (_AttemptFailedError, http.client.HTTPException, OSError) as error:
            problem = _describe(error, timeout)
        if _size(part) == archive.size:
            break
        # A hundredth of the file at least, so that even a server which trickles is given up in the end.
        if _size(part) > furthest + archive.size // 100:
            failures, furthest = 0, _size(part)
        failures += 1
        if failures >= attempts:
            raise DownloadError(
                f"{archive.url} could not be fetched in {attempts} attempts: {problem}. {_size(part)} of "
                f"{archive.size} bytes are kept: check the network and try again, which continues there, or "
                f"download that address by other means to {part.with_suffix('')}"
            )
        time.sleep(min(backoff * 2 ** (failures - 1), _LONGEST_PAUSE))


def _request_rest(archive: Archive, part: Path, progress: Progress, timeout: float) -> None:
    """Make one request and append what it brings."""
    with _open_url(archive, part, timeout) as response:
        done = _agreed_offset(response, archive, part)
        with _local_errors(part):
            file = part.open("ab" if done else "wb", buffering=0)
        with file:
            progress(archive.name, done, archive.size)
            while chunk := response.read1(_CHUNK):
                done += len(chunk)
                if done > archive.size:
                    part.unlink()
                    raise _AttemptFailedError(f"the server sent more than the archive's {archive.size} bytes")
                _write(file, chunk, part)
                progress(archive.name, done, archive.size)


def _open_url(archive: Archive, part: Path, timeout: float) -> Any:
    offset = _size(part)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(archive.url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        status = f"the server answered HTTP {error.code} {error.reason}"
        if error.code == 416 and offset:
            part.unlink()
            raise _AttemptFailedError(f"{status} when asked to continue at byte {offset}") from error
        if error.code >= 500 or error.code in _WORTH_RETRYING:
            raise _AttemptFailedError(status) from error
        raise DownloadError(
            f"{archive.url} could not be fetched: {status}. Open the address in a browser; if the file has "
            f"moved, download it to {part.with_suffix('')} and try again"
        ) from error


def _agreed_offset(response: Any, archive: Archive, part: Path) -> int:
    """Return where the response's body begins in the file; refuse a body that cannot be the archive's."""
    offset, length = 0, response.headers.get("Content-Length")
    if response.status == 206:
        offset, given = _size(part), response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given.strip())
        if not match or int(match[1]) != offset:
            part.unlink(missing_ok=True)
            raise _AttemptFailedError(f"asked for the bytes from {offset}, the server sent {given!r}")
        if match[2] not in ("*", str(archive.size)):
            raise _AttemptFailedError(f"the server's file has {match[2]} bytes, the archive {archive.size}")
    elif response.status != 200:
        raise _AttemptFailedError(f"the server answered HTTP {response.status} {response.reason}")
    if length is not None and length.strip() != str(archive.size - offset):
        kind = response.headers.get("Content-Type", "unknown type")
        raise _AttemptFailedError(
            f"the server offers {length} bytes ({kind}) where {archive.size - offset} are to come"
        )
    return offset


def _write(file: Any, chunk: bytes, path: Path) -> None:
    with _local_errors(path):
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]


def _describe(error: BaseException, timeout: float) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no data for {timeout:g} s"
    if isinstance(reason, http.client.HTTPException):
        return f"the server's answer is no HTTP ({type(reason).__name__})"
    return str(reason) or type(reason).__name__


def _find_fault(path: Path, archive: Archive) -> str | None:
    if _size(path) != archive.size:
        return f"it has {_size(path)} bytes, not {archive.size}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == archive.sha256 else f"its SHA-256 is {digest}, not {archive.sha256}"


# ---- unpacking


def _unpack(file: Path, root: Path, archive: Archive) -> None:
    """Unpack beside the final folder, rename, and delete the archive."""
    staging = root / f".{archive.folder}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as opened:
            members = opened.infolist()
            for member in members:
                _check_member(member, file)
            _check_space(root, sum(member.file_size for member in members), archive.folder)
            for member in members:
                _extract(opened, member, staging)
        if not _is_complete(staging / archive.folder, archive):
            raise DownloadError(f"{file} holds no {archive.folder} with {archive.images} PNG images")
        target = root / archive.folder
        if target.is_dir():
            target.rmdir()
        (staging / archive.folder).replace(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DownloadError(f"{file} cannot be unpacked: {error}; nothing has been left behind") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    file.unlink()


def _check_member(member: zipfile.ZipInfo, file: Path) -> None:
    """Refuse names that lead out of the folder, and anything but plain files and folders."""
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or ":" in member.filename:
        problem = "its path leads out of the folder"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "it is a link or a special file"
    else:
        return
    raise DownloadError(f"{file} holds an unsafe member {member.filename!r} ({problem}); nothing is unpacked")


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, staging: Path) -> None:
    path = staging / member.filename
    if member.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(member) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, _CHUNK)
        target.flush()
        os.fsync(target.fileno())


def _is_complete(folder: Path, archive: Archive) -> bool:
    """Tell whether a folder of images is all there; one that is partly there is an error, not overwritten."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found = sum(1 for _ in folder.glob("*.png"))
    if found < archive.images:
        raise DownloadError(
            f"{folder} holds {found} of the {archive.images} images of {archive.name}; move it away to have "
            "the archive fetched, or train without downloading"
        )
    return True


# ---- the local disk


def _size(path: Path) -> int:
    with _local_errors(path):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0


def _check_space(root: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DownloadError(
            f"{what} needs {needed / 1e9:.2f} GB in {root}, where {free / 1e9:.2f} GB are free; make room or "
            "choose another folder"
        )


@contextlib.contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    """Turn the disk's errors into one message, apart from the network's, which are OSErrors too."""
    try:
        yield
    except OSError as error:
        hint = "make room there" if error.errno == errno.ENOSPC else "make it writable"
        raise DownloadError(
            f"cannot write to {error.filename or path}: {error.strerror or error}; {hint} or choose another "
            "folder. What has arrived is kept"
        ) from error


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the system frees the lock even when this one is killed."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (root / ".download.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another process is downloading to {root}; wait for it to finish") from error
        except OSError:  # a file system without locks
            pass
        yield
