"""Checkpoints from http(s) addresses, kept in torch's hub cache and verified each time they are used."""

import errno
import hashlib
import http.client
import io
import re
import shutil
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from invertible_rescaling.errors import CheckpointError, first_line
from invertible_rescaling.files import write_atomically
from invertible_rescaling.weights.checkpoint import Checkpoint, read_checkpoint

__all__: list[str] = []  # for weights alone

TIMEOUT = 30.0  # seconds without any data after which a download fails


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
        stem = stem.encode()[:200].decode(errors="ignore")  # file systems allow names of 255 bytes
        return cls(url, f"{stem}.{tag}.{suffix}" if dot else f"{file}.{tag}", expected)

    def verified(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a checkpoint if it is the one that the address asks for."""
        if not checkpoint.sha256.startswith(self.sha256):
            raise CheckpointError(
                f"{checkpoint.source} has the SHA-256 {checkpoint.sha256}; the address asks for {self.sha256}"
            )
        return checkpoint


@contextmanager
def fetched(given: str) -> Iterator[Checkpoint]:
    """Give the checkpoint of an http(s) address; keep it in torch's hub cache if the block succeeds.

    It lies in ``torch.hub.get_dir()/checkpoints``, and is verified each time it is used. The address may tell
    its SHA-256: all of it as ``#sha256=...`` at the end, or the beginning, of 8 digits or more, in a file
    name like ``NAME-1a2b3c4d.safetensors``, which is then its name in the cache too. Other names are told
    apart there by the first digits of the hash, or, where none is given, of the address's own.

    Raises:
        CheckpointError: the server or the disk fails, what came is not the checkpoint asked for, or the block
            raises it. The cache then holds nothing of what this call fetched.
    """
    address = _Address.of(given)
    path = Path(torch.hub.get_dir(), "checkpoints", address.file)
    kept = _kept(address, path)
    if kept is not None:
        yield kept
        return
    try:
        content = _download(address.url)
        checkpoint = address.verified(Checkpoint.parse(content, address.url))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; nothing was kept or loaded. Check the address and the network and try again, or fetch "
            "the file by other means and pass its path"
        ) from error
    try:
        yield checkpoint
    except CheckpointError as error:
        raise CheckpointError(f"{error}; nothing was kept or loaded") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        remedy = "make room" if error.errno == errno.ENOSPC else "make it writable"
        raise CheckpointError(
            f"{address.url} cannot be kept in {path.parent}: {error.strerror or error}; "
            f"{remedy} there or set TORCH_HOME to another folder"
        ) from error


def _kept(address: _Address, path: Path) -> Checkpoint | None:
    """Return what the cache has; remove it if it is not what was kept there."""
    if not path.exists():
        return None
    try:
        return replace(address.verified(read_checkpoint(path)), source=address.url)
    except CheckpointError as error:
        warnings.warn(f"in the cache, {error}; it is fetched again", stacklevel=3)
        path.unlink()
        return None


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            announced, received = response.length, io.BytesIO()
            shutil.copyfileobj(response, received)  # in parts: whatever length is announced, it need not come
    except urllib.error.HTTPError as error:
        error.close()
        said = str(error.reason).partition("\n")[0]
        raise CheckpointError(f"{url}: the server answered HTTP {error.code} {said}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CheckpointError(f"{url}: {_describe(error)}") from error
    content = received.getvalue()
    if announced is not None and len(content) != announced:
        raise CheckpointError(f"{url}: the connection ended after {len(content)} of {announced} bytes")
    return content


def _describe(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no data for {TIMEOUT:g} s"
    if isinstance(reason, http.client.HTTPException):
        return f"the server's answer is no proper HTTP ({type(reason).__name__})"
    return first_line(reason) if isinstance(reason, BaseException) else str(reason)
