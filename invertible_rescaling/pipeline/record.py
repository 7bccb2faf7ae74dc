"""The record in the files that are made: where they come from, and how to bring them back."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from torch import Tensor

from invertible_rescaling._version import __version__
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.images import Picture

__all__: list[str] = []  # for the command line alone

KEY = "invertible_rescaling"
_FORMAT = 1
_KINDS = ("lr", "restored")


@dataclass(frozen=True)
class Record:
    """The metadata of a file that ``downscale`` or ``upscale`` made.

    Attributes:
        kind: ``"lr"`` or ``"restored"``.
        model: the name it was made with.
        weights_sha256: of the file of weights, in hexadecimal.
        scale: of the model.
        original_size: (H, W) of the picture that LR was made of.
        size: (H, W) of this one.
        channels: 1 for greyscale, 3 for RGB; WebP stores the former as the latter.
        alpha: whether it has alpha; WebP leaves out one that is opaque everywhere.
        bits: 8 or 16.
        source_sha256: of the file it was made of.
        source_format: of that file, as ``"JPEG"``.
        pixels_sha256: see :func:`pixels_sha256`; ``None`` where a lossy format has changed the pixels.
        quality: of a lossy format, if one was asked for.
        version: of the library.
    """

    kind: str
    model: str
    weights_sha256: str
    scale: int
    original_size: tuple[int, int]
    size: tuple[int, int]
    channels: int
    alpha: bool
    bits: int
    source_sha256: str
    source_format: str
    pixels_sha256: str | None
    quality: int | None = None
    version: str = __version__

    @classmethod
    def of(cls, picture: Picture, lossy: bool, **facts: Any) -> Self:
        """The record of a picture that is about to be stored."""
        return cls(
            size=picture.size,
            channels=picture.colour.shape[0],
            alpha=picture.alpha is not None,
            bits=picture.bits,
            pixels_sha256=None if lossy else pixels_sha256(picture),
            **facts,
        )

    def text(self) -> str:
        """As it is stored: JSON."""
        return json.dumps({"format": _FORMAT} | asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`text` wrote.

        Raises:
            ConfigError: it is damaged, or of a later format.

        Example:
            >>> from invertible_rescaling.pipeline.record import Record
            >>> Record.parse('{"format": 2}')
            Traceback (most recent call last):
                ...
            invertible_rescaling.errors.ConfigError: its metadata has format 2; this version reads format 1
        """
        try:
            found = dict(json.loads(text))
            form = found.pop("format", None)
            if form != _FORMAT:
                raise ConfigError(f"its metadata has format {form!r}; this version reads format {_FORMAT}")
            record = cls(**{field.name: found[field.name] for field in fields(cls)})
            height, width = record.original_size
            own_height, own_width = record.size
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"its metadata is damaged ({type(error).__name__}: {error})") from error
        counts = (height, width, own_height, own_width, record.scale, record.channels, record.bits)
        strings = (
            record.model,
            record.weights_sha256,
            record.source_sha256,
            record.source_format,
            record.version,
        )
        good = all(type(count) is int and count >= 1 for count in counts)
        if not good or not all(type(value) is str for value in strings) or record.kind not in _KINDS:
            raise ConfigError("its metadata is damaged: values of another kind than this library writes")
        return cls(**{**asdict(record), "original_size": (height, width), "size": (own_height, own_width)})


def record_of(picture: Picture) -> Record | None:
    """The record that a picture carries, if any.

    Raises:
        ConfigError: it is damaged, or of a later format.
    """
    return Record.parse(picture.text[KEY]) if KEY in picture.text else None


def pixels_sha256(picture: Picture) -> str:
    """A hash of a picture's pixels, colour and alpha, that does not depend on the file format."""
    digest = hashlib.sha256(f"{picture.bits}:{tuple(picture.colour.shape)};".encode())
    for plane in (picture.colour, picture.alpha):
        digest.update(b"-" if plane is None else _bytes(plane))
    return digest.hexdigest()


def _bytes(plane: Tensor) -> bytes:
    array = plane.cpu().contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
