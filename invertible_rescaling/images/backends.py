"""The packages that read and write image files, asked for where they are needed."""

import importlib
import logging
from typing import Any

from invertible_rescaling.errors import MissingDependencyError

__all__: list[str] = []  # for this package alone


def pillow(module: str) -> Any:
    """A module of Pillow.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return _module(f"PIL.{module}", "reading and writing image files needs Pillow")


def deep(package: str) -> Any:
    """The package ``imagecodecs``, ``tifffile`` or ``netpbmfile``, for files that Pillow cuts to 8 bits.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return _module(package, f"pictures of more than 8 bits need {package}")


def _module(name: str, why: str) -> Any:
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(f"{why}: pip install 'invertible_rescaling[images]'") from error
    logger = logging.getLogger(name.split(".")[0])
    if (
        not logger.handlers
    ):  # what it logs about a file is kept from standard error, unless somebody handles it
        logger.addHandler(logging.NullHandler())
    return found
