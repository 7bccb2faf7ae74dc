"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

__all__: list[str] = []  # for this package alone

try:
    __version__ = version("invertible_rescaling")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
