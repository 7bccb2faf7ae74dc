"""Checkpoints from http(s) addresses, kept in torch's hub cache and verified each time they are used."""

import errno
import hashlib
import http.client
import io
import os
import re
import secrets
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import torch

from invertible_rescaling.errors import CheckpointError, first_line
from invertible_rescaling.files import sha256_of
from invertible_rescaling.weights.checkpoint import verify_checkpoint

__all__: list[str] = []  # for weights alone

TIMEOUT = 30.0  # seconds without any data after which a server is given up
PATIENCE = 60.0  # seconds of waiting after each of which it is given up if less came than
SLOWEST = 1000  # bytes a second
LARGEST = 2 << 30  # bytes, heads and redirections included
_CHUNK = 1 << 18

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class _Address:
    """A URL taken apart: what to request, the name in the cache, and how the file's SHA-256 is to begin."""

    url: str
    file: str
    sha256: str

    @classmethod
    def of(cls, given: str) -> "_Address":
        url, _, fragment = given.partition("#")
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise CheckpointError(f"{given!r} is no address: {error}") from error
        if parts.scheme.lower() not in ("http", "https"):
            raise CheckpointError(
                f"weights are fetched from http and https addresses, got {given!r}; pass a local file's path"
            )
        file = re.sub(r"[^\w.+-]", "_", unquote(parts.path.rsplit("/", 1)[-1]))
        if not file.strip("._"):
            raise CheckpointError(f"the address {given!r} names no file; it must end in one's name")
        if fragment and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
            raise CheckpointError(
                f"the address {given!r} ends in '#{fragment}'; a hash is written #sha256=, then 64 digits"
            )
        if not fragment and (match := re.search(r"-([0-9a-f]{8,64})(?=\.|$)", file)):
            return cls(url, file, match[1])
        # Nothing ties such a name to one content: other addresses may well end in the same.
        expected = fragment.removeprefix("sha256=").lower()
        tag = (expected or hashlib.sha256(url.encode()).hexdigest())[:8]
        stem, dot, suffix = file.rpartition(".")
        return cls(url, f"{stem}.{tag}.{suffix}" if dot else f"{file}.{tag}", expected)

    def verify(self, path: Path) -> None:
        found = sha256_of(path)
        if not found.startswith(self.sha256):
            raise CheckpointError(f"{path} has the SHA-256 {found}; the address asks for {self.sha256}")
        verify_checkpoint(path)


def fetch(given: str, load: Callable[[Path], Loaded]) -> Loaded:
    """Return what ``load`` makes of the file of an http(s) address, which is kept in torch's hub cache.

    It lies in ``torch.hub.get_dir()/checkpoints``, and is verified each time it is used. The address may tell
    its SHA-256: all of it as ``#sha256=...`` at the end, or the beginning, of 8 digits or more, in a file
    name like ``NAME-1a2b3c4d.safetensors``, which is then its name in the cache too. Other names are told
    apart there by the first digits of the hash, or, where none is given, of the address's own.

    A server is given up that sends nothing for ``TIMEOUT``, less than ``SLOWEST`` for ``PATIENCE``, or more
    than ``LARGEST``.

    Raises:
        CheckpointError: the server or the disk fails, what came is not the checkpoint asked for, or ``load``
            raises it. The cache then holds nothing of what this call fetched.
    """
    address = _Address.of(given)
    folder = Path(torch.hub.get_dir(), "checkpoints")
    path = folder / address.file
    part = folder / f".{address.file}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        if _is_kept(address, path):
            return _use(load, path, address.url)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _download(address, part)
            loaded = _use(load, part, address.url, "; nothing was kept or loaded")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:  # of the disk: those of the network do not come here
        remedy = "make room" if error.errno == errno.ENOSPC else "make it writable"
        raise CheckpointError(
            f"{address.url} cannot be kept in {folder}: {error.strerror or error}; "
            f"{remedy} there or set TORCH_HOME to another folder"
        ) from error
    return loaded


def _is_kept(address: _Address, path: Path) -> bool:
    """Return whether the cache has the file; remove what is not what was kept there."""
    if not path.exists():
        return False
    try:
        address.verify(path)
    except CheckpointError as error:
        warnings.warn(f"in the cache, {error}; it is fetched again", stacklevel=3)
        path.unlink()
        return False
    return True


def _use(load: Callable[[Path], Loaded], path: Path, url: str, outcome: str = "") -> Loaded:
    try:
        return load(path)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(os.fspath(path), url) + outcome) from error


def _download(address: _Address, part: Path) -> None:
    try:
        with part.open("xb") as file, closing(_receive(address.url)) as chunks:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        address.verify(part)
    except CheckpointError as error:
        raise CheckpointError(
            f"{str(error).replace(os.fspath(part), address.url)}; nothing was kept or loaded. Check the "
            "address and the network and try again, or fetch the file by other means and pass its path"
        ) from error


class _Paced(io.RawIOBase):
    """A socket's bytes from an answer's first on, while it is neither too slow nor too much."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._total = self._lately = 0
        self._waited = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        started = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - started
        self._lately += count or 0
        self._total += count or 0
        if self._total > LARGEST:
            raise OSError(f"more than {LARGEST} bytes came, the most that is taken")
        if count and self._waited > PATIENCE:
            if self._lately < SLOWEST * self._waited:
                raise OSError(f"less than {SLOWEST} bytes a second came for {PATIENCE:g} s")
            self._waited, self._lately = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain: Any = self.fp
        self.fp = io.BufferedReader(_Paced(plain.detach()))


class _HTTP(http.client.HTTPConnection):
    response_class = _Response


class _HTTPS(http.client.HTTPSConnection):
    response_class = _Response


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTP, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPS, req)


def _receive(url: str) -> Generator[bytes, None, None]:
    """Yield what a server sends, up to the length that it announced."""
    received = 0
    opener = urllib.request.build_opener(_HTTPHandler, _HTTPSHandler)
    try:
        with opener.open(url, timeout=TIMEOUT) as response:
            announced = response.length
            if announced is not None and announced > LARGEST:
                raise OSError(f"{announced} bytes are announced, and {LARGEST} are the most that is taken")
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                yield chunk
    except urllib.error.HTTPError as error:
        error.close()
        said = str(error.reason).partition("\n")[0]
        raise CheckpointError(f"{url}: the server answered HTTP {error.code} {said}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CheckpointError(f"{url}: {_describe(error)}, after {received} bytes") from error
    if announced is not None and received != announced:
        raise CheckpointError(f"{url}: the connection ended after {received} of {announced} bytes")


def _describe(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no data for {TIMEOUT:g} s"
    if isinstance(reason, http.client.HTTPException):
        return f"the server's answer is no proper HTTP ({type(reason).__name__})"
    return first_line(reason) if isinstance(reason, BaseException) else str(reason)
