"""Checkpoints from http(s) addresses, kept in torch's hub cache and verified each time they are used."""

import errno
import hashlib
import http.client
import os
import re
import secrets
import urllib.error
import urllib.request
import warnings
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from invertible_rescaling.checkpoint import verify_checkpoint
from invertible_rescaling.errors import CheckpointError
from invertible_rescaling.files import sha256_of

__all__: list[str] = []  # for weights alone

TIMEOUT = 30.0  # seconds without any data after which a server is given up
_CHUNK = 1 << 18


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


def fetch(given: str) -> Path:
    """Return the file of an http(s) address from torch's hub cache, where it is put if it is not there.

    It lies in ``torch.hub.get_dir()/checkpoints``, and is verified each time it is used. The address may tell
    its SHA-256: all of it as ``#sha256=...`` at the end, or the beginning, of 8 digits or more, in a file
    name like ``NAME-1a2b3c4d.safetensors``, which is then its name in the cache too. Other names are told
    apart there by the first digits of the hash, or, where none is given, of the address's own.

    Raises:
        CheckpointError: the server or the disk fails, or what came is not the checkpoint asked for. The cache
            then holds nothing of it.
    """
    address = _Address.of(given)
    folder = Path(torch.hub.get_dir(), "checkpoints")
    path = folder / address.file
    part = folder / f".{address.file}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        if path.exists():
            try:
                address.verify(path)
                return path
            except CheckpointError as error:
                warnings.warn(f"in the cache, {error}; it is fetched again", stacklevel=2)
                path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(part, address.url)
            address.verify(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:  # of the disk: those of the network do not come here
        remedy = "make room" if error.errno == errno.ENOSPC else "make it writable"
        raise CheckpointError(
            f"{address.url} cannot be kept in {folder}: {error.strerror or error}; "
            f"{remedy} there or set TORCH_HOME to another folder"
        ) from error
    except CheckpointError as error:
        raise CheckpointError(
            f"{str(error).replace(os.fspath(part), address.url)}; nothing was kept or loaded. Check the "
            "address and the network and try again, or fetch the file by other means and pass its path"
        ) from error
    return path


def _write(path: Path, url: str) -> None:
    with path.open("xb") as file, closing(_receive(url)) as chunks:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _receive(url: str) -> Generator[bytes, None, None]:
    """Yield what a server sends, up to the length that it announced."""
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            announced = response.length
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                yield chunk
    except urllib.error.HTTPError as error:
        error.close()
        raise CheckpointError(f"{url}: the server answered HTTP {error.code} {error.reason}") from error
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
    return str(reason) or type(reason).__name__
