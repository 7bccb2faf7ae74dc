"""The task for one picture: read, shrink or enlarge, record where it comes from, write."""

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from invertible_rescaling.errors import ConfigError, ImageError, RescalingError, first_line
from invertible_rescaling.files import write_atomically
from invertible_rescaling.images import MAX_PIXELS, Picture, decode_picture, encode_picture, fit_metadata
from invertible_rescaling.images.encoding import format_of
from invertible_rescaling.images.formats import format_in
from invertible_rescaling.images.jpeg import quality_of
from invertible_rescaling.pipeline.networks import (
    JPEG_MODEL,
    ModelChoice,
    Network,
    choice_for,
    load,
    lowest_jpeg,
)
from invertible_rescaling.pipeline.paths import FileTask
from invertible_rescaling.pipeline.record import KEY, Record, pixels_sha256, record_of

__all__ = ["FileOutcome", "RescaleOptions", "rescale_file"]

_LESS = "try --jobs 1, or a smaller --tile"


@dataclass(frozen=True)
class RescaleOptions:
    """The options of all pictures of a run.

    Attributes:
        direction: ``"downscale"`` or ``"upscale"``.
        choice: which model, as asked for.
        quality: of JPEG and WebP; ``None`` for lossless WebP.
        subsampling: of the colour of JPEG.
        tile: HR pixels a side, 0 for none, ``None`` for automatic.
        size: (H, W) to bring back, where the file does not say.
        force: overwrite what exists.
        resume: skip what exists and was made of the same file with the same model.
        max_pixels: of a picture, read or made.
        strip: leave out EXIF, XMP and text, which tell of people and places.
    """

    direction: str
    choice: ModelChoice = field(default_factory=ModelChoice)
    quality: int | None = None
    subsampling: str = "4:4:4"
    tile: int | None = None
    size: tuple[int, int] | None = None
    force: bool = False
    resume: bool = False
    max_pixels: int = MAX_PIXELS
    strip: bool = False


@dataclass(frozen=True)
class FileOutcome:
    """The outcome of a task.

    Attributes:
        source: its file.
        status: ``"done"``, ``"skipped"`` or ``"failed"``.
        problem: why it failed.
        notes: what the user should know.
    """

    source: Path
    status: str
    problem: str = ""
    notes: tuple[str, ...] = ()


def rescale_file(
    task: FileTask, options: RescaleOptions, progress: Callable[[float], None] | None = None
) -> FileOutcome:
    """Shrink or bring back one file; whatever goes wrong with it is its outcome.

    The model is kept for the next call. What is written says in its metadata how to bring it back.

    Args:
        task: the file, and the one to make of it, whose suffix says how it is written.
        options: what is done, and how.
        progress: called now and then with the share of a large picture that is done, 0 to 1.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from invertible_rescaling.images import write_image
        >>> from invertible_rescaling.pipeline import FileTask, ModelChoice, RescaleOptions, rescale_file
        >>> options = RescaleOptions("downscale", ModelChoice("linear_x2"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(Path(folder, "a.png"), torch.rand(3, 20, 24))
        ...     rescale_file(FileTask(Path(folder, "a.png"), Path(folder, "small.png")), options).status
        'done'
    """
    try:
        return _rescale_file(task, options, progress)
    except Exception as error:  # whatever a package raises, the other pictures are to be done
        return FileOutcome(task.source, "failed", problem_of(error, task.target))


def problem_of(error: Exception, target: Path | None = None) -> str:
    """What went wrong with a picture, in one line, with a way out where there is one."""
    if isinstance(error, RescalingError):
        return str(error).replace("raise max_pixels", "raise --max-pixels")
    if isinstance(error, OSError):
        where = error.filename or target
        return f"{error.strerror or first_line(error)}{f' ({where})' if where else ''}"
    if isinstance(error, MemoryError):
        return f"there is not enough memory for it; {_LESS}"
    if isinstance(error, RuntimeError) and "memory" in str(error):  # torch's, on any device
        return f"there is not enough memory for it ({first_line(error)}); {_LESS}"
    return f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else type(error).__name__


@dataclass(frozen=True)
class _Job:
    """A picture, what to rescale it with, the size of HR, and what to tell of it."""

    picture: Picture
    network: Network
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def _rescale_file(
    task: FileTask, options: RescaleOptions, progress: Callable[[float], None] | None
) -> FileOutcome:
    exists, down = task.target.exists(), options.direction == "downscale"
    if exists and not (options.resume or options.force):
        raise ImageError(f"{task.target} exists; pass --resume to skip what is done, or --force to overwrite")
    _check_writable(task.target.parent)
    kind = format_of(task.target)
    lossy = is_lossy(kind, options.quality)
    if task.source.exists() and not task.source.is_file():  # which reading might wait for, without end
        raise ImageError("no picture, but a device, a pipe or a folder")
    content = task.source.read_bytes()
    source_sha256 = hashlib.sha256(content).hexdigest()
    if exists and options.resume and down and _is_done(task, options, source_sha256, load(options.choice)):
        return FileOutcome(task.source, "skipped")  # without unpacking what may be large
    picture = decode_picture(content, max_pixels=options.max_pixels)
    source_format = format_in(content)
    jpeg_quality = None if down or source_format != "JPEG" else quality_of(content)
    del content
    if down:
        job = _Job(picture, load(options.choice), picture.size, picture.notes)
    else:
        job = _up(picture, options, jpeg_quality)
    if exists and options.resume and not down and _is_done(task, options, source_sha256, job.network):
        return FileOutcome(task.source, "skipped")
    if exists and not options.force:
        raise ImageError(
            f"{task.target} exists, and was not made of this file with this model and quality; "
            "pass --force to overwrite"
        )
    rescaler = job.network.in_tiles(options.tile, job.size)
    if down:
        made = rescaler.downscale(job.picture, progress=progress)
    else:
        made = rescaler.upscale(job.picture, job.size, progress=progress)
    record = Record.of(
        made,
        lossy,
        kind="lr" if down else "restored",
        model=job.network.name,
        weights_sha256=job.network.sha256,
        scale=job.network.model.scale,
        original_size=job.size,
        source_sha256=source_sha256,
        source_format=source_format,
        quality=options.quality,
    )
    made = made.bare() if options.strip else made
    made = replace(made, text={KEY: record.text()} | {k: v for k, v in made.text.items() if k != KEY})
    made = fit_metadata(made, kind)
    encoded = encode_picture(made, kind, quality=options.quality, subsampling=options.subsampling)
    task.target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(task.target, encoded)
    return FileOutcome(task.source, "done", notes=(*job.notes, *made.notes))


def is_lossy(kind: str, quality: int | None) -> bool:
    """Return whether a format loses what the pixels carry."""
    return kind == "jpg" or (kind == "webp" and quality is not None)


def _check_writable(wanted: Path) -> None:
    """Find out before anything is computed that nothing can be written.

    Raises:
        OSError: it cannot.
    """
    folder = wanted
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(wanted))


def _up(picture: Picture, options: RescaleOptions, jpeg_quality: int | None) -> _Job:
    """The LR picture as it was made, and how to bring it back: as it says, or as the options say.

    ``jpeg_quality`` is that of its file, if it is a JPEG.
    """
    notes = [*picture.notes]
    try:
        record = record_of(picture)
        problem = "it carries no metadata of downscale" if record is None else None
    except ConfigError as error:
        record, problem = None, str(error)
    if record is not None:
        picture = as_made(picture, record)
        problem = edited(picture, record)
    if problem:
        if options.choice.model is None:
            ways = "--model (and --weights and --size WxH as they apply) to go by these"
            if jpeg_quality is not None:
                ways += (
                    f"; as of a JPEG by downscale: --model {JPEG_MODEL} --weights JPEG90, or JPEG75 after "
                    "--quality 75"
                )
            raise ImageError(f"{problem}; pass {ways}")
        notes.append(f"{problem}; brought back by the options alone")
    if record is None or problem:
        network = load(options.choice)
    else:
        network = load(choice_for(record, options.choice))
        if network.sha256 != record.weights_sha256:
            notes.append(f"it was made with other weights, of {record.model}")
        if record.pixels_sha256 is None and lowest_jpeg(network) is None:
            notes.append("LR was stored with loss, which shows in what is brought back")
    lowest = lowest_jpeg(network)
    if jpeg_quality is not None and lowest is not None and jpeg_quality < lowest:
        notes.append(
            f"it is a JPEG of quality {jpeg_quality}, below {lowest}, the lowest that the weights were "
            "trained for"
        )
    scale = network.model.scale
    size = options.size or (picture.size[0] * scale, picture.size[1] * scale)
    if options.size is None and record is not None and not problem and record.scale == scale:
        size = record.original_size
    if size[0] * size[1] > options.max_pixels:
        raise ImageError(
            f"it would become {size[1]}x{size[0]}, over the limit of {options.max_pixels:,} pixels; "
            "raise --max-pixels"
        )
    return _Job(picture, network, size, tuple(notes))


def as_made(picture: Picture, record: Record) -> Picture:
    """Undo what WebP did: greyscale stored as RGB, and alpha left out where all is opaque."""
    colour, alpha = picture.colour, picture.alpha
    if record.channels == 1 and colour.shape[0] == 3 and bool((colour[:1] == colour).all()):
        colour = colour[:1].clone()
    if record.alpha and alpha is None:
        alpha = torch.full_like(colour[:1], 255) if picture.bits == 8 else None
    return replace(picture, colour=colour, alpha=alpha)


def edited(picture: Picture, record: Record, kind: str = "lr") -> str | None:
    """Return why a picture does not match its own metadata, or ``None``."""
    if record.kind != kind:
        return "it was made by upscale, and is no LR picture"
    if picture.size != record.size:
        now, then = ("x".join(map(str, reversed(size))) for size in (picture.size, record.size))
        return f"it was edited since it was made: it is {now} now, and was {then}"
    if record.pixels_sha256 is not None and pixels_sha256(picture) != record.pixels_sha256:
        return "it was edited since it was made: its pixels are not those that were written"
    return None


def _is_done(task: FileTask, options: RescaleOptions, source_sha256: str, network: Network) -> bool:
    """Return whether the task's file is there already: whole, and made of this source with this network."""
    try:
        picture = decode_picture(task.target.read_bytes(), max_pixels=options.max_pixels)
        record = record_of(picture)
    except (RescalingError, OSError):
        return False
    if record is None:
        return False
    kind = "lr" if options.direction == "downscale" else "restored"
    lossy = is_lossy(format_of(task.target), options.quality)
    wanted = (kind, source_sha256, network.sha256, lossy, options.quality)
    made = (record.pixels_sha256 is None, record.quality)
    found = (record.kind, record.source_sha256, record.weights_sha256, *made)
    return found == wanted and (lossy or record.pixels_sha256 == pixels_sha256(as_made(picture, record)))
