"""The images of DIV2K: its archives fetched, checked against their hashes and unpacked."""

import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from invertible_rescaling.errors import RescalingError, first_line

__all__ = ["DIV2K_ARCHIVES", "Archive", "DownloadError", "download_div2k"]

_TIMEOUT = 30.0  # seconds without any data
_ATTEMPTS = 5


class DownloadError(RescalingError):
    """A data set could not be fetched, verified or unpacked."""


@dataclass(frozen=True)
class Archive:
    """A zip file on a server, with one folder of PNG images named as the file is.

    Attributes:
        url: where it is; the last part of the path is its name.
        sha256: of the whole file, in hexadecimal.
        images: how many PNG files the folder in it holds.
    """

    url: str
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
        sha256="9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
        images=800,
    ),
    Archive(
        url="https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        sha256="20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
        images=100,
    ),
)


def download_div2k(
    folder: str | os.PathLike[str],
    *,
    progress: bool = False,
    archives: Sequence[Archive] = DIV2K_ARCHIVES,
) -> Path:
    """Leave ``DIV2K_train_HR/*.png`` and ``DIV2K_valid_HR/*.png`` in a folder; fetch what is not there.

    The archives, 3.5 GB and 0.4 GB, are deleted once they are unpacked. One that lies in the folder under its
    own name is used, so that ``wget -c`` can fetch it where connections break.

    Args:
        folder: where to; made if missing.
        progress: show a bar for each archive.
        archives: what to fetch.

    Returns:
        The folder.

    Raises:
        DownloadError: the server cannot be reached, or serves something else; an archive in the folder is not
            the official one; a folder of images is there and not complete; the disk fails.
    """
    root = Path(folder)
    try:
        for archive in archives:
            if not _is_complete(root / archive.folder, archive):
                file = root / archive.name
                _check(file, archive) if file.exists() else _fetch(archive, root, progress)
                _unpack(file, root, archive)
    except OSError as error:
        raise DownloadError(
            f"cannot write to {error.filename or root}: {error.strerror or error}; make room there, make it "
            "writable, or choose another folder"
        ) from error
    return root


def _fetch(archive: Archive, root: Path, progress: bool) -> None:
    import pooch  # here, since few need it
    from requests import RequestException

    fetcher = pooch.create(
        path=root,
        base_url=archive.url.removesuffix(archive.name),
        registry={archive.name: f"sha256:{archive.sha256}"},
        retry_if_failed=_ATTEMPTS - 1,
    )
    try:
        fetcher.fetch(archive.name, downloader=pooch.HTTPDownloader(progressbar=progress, timeout=_TIMEOUT))
    except (RequestException, ValueError) as error:  # the latter where the hash is another
        raise DownloadError(
            f"{archive.url} could not be fetched in {_ATTEMPTS} attempts: {first_line(error)}. Try again, or "
            f"fetch it by other means: wget -c -P {root} {archive.url}"
        ) from error


def _check(file: Path, archive: Archive) -> None:
    import pooch

    found = pooch.file_hash(str(file))
    if found != archive.sha256:
        raise DownloadError(
            f"{file} is not the official archive, or a part of it (its SHA-256 is {found}); complete it by "
            f"wget -c, or move it away to have it fetched"
        )


def _unpack(file: Path, root: Path, archive: Archive) -> None:
    """Unpack beside the final folder, rename, and delete the archive."""
    staging = root / f".{archive.folder}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as opened:
            opened.extractall(staging)
        if not _is_complete(staging / archive.folder, archive):
            raise DownloadError(f"{file} holds no {archive.folder} with {archive.images} PNG images")
        target = root / archive.folder
        if target.is_dir():
            target.rmdir()
        (staging / archive.folder).replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    file.unlink()


def _is_complete(folder: Path, archive: Archive) -> bool:
    """Return whether a folder has all images; one that has some is an error, and left alone."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found = sum(1 for _ in folder.glob("*.png"))
    if found < archive.images:
        raise DownloadError(
            f"{folder} holds {found} of the {archive.images} images of {archive.name}; move it away to have "
            "the archive fetched, or train without downloading"
        )
    return True
