"""The packages that read and write image files, asked for where they are needed."""

import importlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from invertible_rescaling.errors import MissingDependencyError

__all__: list[str] = []  # for this package alone

_lock = threading.Lock()
_lifted: list[Any] = []  # Pillow's limit as each block that lifts it found it


def pillow(module: str) -> Any:
    """A module of Pillow.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        found = importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            "reading and writing image files needs Pillow: pip install 'invertible_rescaling[images]'"
        ) from error
    _keep_quiet("PIL")
    return found


def deep(package: str) -> Any:
    """The package ``imagecodecs`` or ``tifffile``, for the 16-bit files that Pillow cuts to 8.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        found = importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"16-bit pictures of several channels need {package}: pip install 'invertible_rescaling[images]'"
        ) from error
    _keep_quiet(package)
    return found


def _keep_quiet(package: str) -> None:
    """Keep what a package logs about a file from standard error, unless somebody handles it."""
    logger = logging.getLogger(package)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Let Pillow open an image of any size: the caller checks it, against a limit of its own.

    Pillow keeps its limit in a global; it is put back when the last of the threads that lifted it is done.
    """
    image = pillow("Image")
    with _lock:
        _lifted.append(image.MAX_IMAGE_PIXELS)
        image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _lock:
            if len(_lifted) > 1:
                _lifted.pop()  # one of those that found it lifted; which of them does not matter
            else:
                image.MAX_IMAGE_PIXELS = _lifted.pop()
