"""Exceptions: one root, one class for each kind of mistake.

Every message names the offending value, the rule it breaks and a way out. Each class also derives
from the built-in exception that plain Python code would have raised, so ``except ValueError`` works
as expected.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DtypeError",
    "ImageError",
    "InvertibilityError",
    "MetadataWarning",
    "MissingDependencyError",
    "RescalingError",
    "ShapeError",
    "UnknownNameError",
    "ValueRangeError",
]


class RescalingError(Exception):
    """Root of every error this library raises on purpose."""


class ShapeError(RescalingError, ValueError):
    """A tensor has the wrong rank, number of channels, height or width."""


class DtypeError(RescalingError, TypeError):
    """A tensor has a dtype that the bijection does not accept."""


class ValueRangeError(RescalingError, ValueError):
    """A tensor or number is outside the range it is defined on."""


class ConfigError(RescalingError, ValueError):
    """A layer or model was asked for with arguments that do not fit together."""


class UnknownNameError(RescalingError, LookupError):
    """A name is not registered, or is registered already."""


class CheckpointError(RescalingError, RuntimeError):
    """A checkpoint is damaged, foreign, or belongs to another model."""


class ImageError(RescalingError, OSError):
    """An image file cannot be read or written."""


class InvertibilityError(RescalingError, AssertionError):
    """A layer failed :func:`~invertible_rescaling.testing.check_invertible` or ``check_log_det``."""


class MetadataWarning(UserWarning):
    """Some of a picture's metadata do not fit into the format it is written in, and are left out."""


class MissingDependencyError(RescalingError, ImportError):
    """An optional package is needed for this call and is not installed."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class's name."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def printable(text: str) -> str:
    """One line without what names of files and their metadata may hold beside text.

    Line ends, escapes that would reach the terminal, and bytes that are of no encoding come as escapes.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
