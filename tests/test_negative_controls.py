"""Tests of what becomes of pictures can fail: each does with the mistake that it is there for."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from invertible_rescaling import _process, files, functional
from invertible_rescaling.errors import ImageError
from invertible_rescaling.images import decoding, io, metadata, tiff
from invertible_rescaling.pipeline import tasks, workers
from tests import test_process
from tests.cli import test_cli_failures
from tests.images import test_formats, test_metadata
from tests.layers import test_haar
from tests.pipeline import test_paths
from tests.shell import tiny_weights

Fixtures = dict[str, Any]


def _exceptions_leave_a_picture(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(workers, "rescale_file", tasks._rescale_file)


def _pillow_opens_whatever_it_knows(patch: pytest.MonkeyPatch) -> None:
    def by_pillow(file: Any) -> Any:
        return decoding._of_8_bits(Image.open(BytesIO(file.content)), file.carried)

    patch.setattr(decoding, "format_in", lambda _content: "PNG")
    patch.setitem(decoding._READERS, "PNG", by_pillow)


def _deep_pixels_are_not_spread(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tiff, "to_16_bits", lambda array, *_arguments, **_options: array)


def _another_channel_counts_as_alpha(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tiff, "beside_colour", lambda *_arguments: (2, 0))


def _nothing_is_noted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metadata.Carried, "note", lambda *_arguments: None)


def _all_of_exif_is_read(patch: pytest.MonkeyPatch) -> None:
    upright = metadata.upright

    def by_pillow(block: bytes) -> tuple[bytes | None, int]:
        exif = Image.Exif()
        exif.load(block)
        exif.tobytes()
        return upright(block)

    patch.setattr(metadata, "upright", by_pillow)


def _want_of_memory_is_corruption(patch: pytest.MonkeyPatch) -> None:
    decode = io.decode

    def careless(*arguments: Any, **options: Any) -> Any:
        try:
            return decode(*arguments, **options)
        except MemoryError as error:
            raise ValueError("it is corrupt") from error

    patch.setattr(io, "decode", careless)


def _temporary_names_hold_the_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "temporary_name", lambda name, pid: f".{name}.{pid}-{'0' * 8}.tmp")


def _layouts_are_asked_for_under_transforms(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(functional, "_is_transformed", lambda _tensor: False)


def _containers_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_process, "_words", lambda _path: [])


# The mistake, what fails with it, and how.
CONTROLS: list[
    tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Fixtures], None], type[BaseException]]
] = [
    (
        _exceptions_leave_a_picture,
        lambda given: test_cli_failures.test_nothing_that_a_package_raises_ends_a_run(
            **given, error=IndexError("list index out of range")
        ),
        IndexError,
    ),
    (
        _pillow_opens_whatever_it_knows,
        lambda given: test_formats.test_what_is_not_read_is_named(b"8BPS\0\1", "Photoshop (PSD)"),
        AssertionError,
    ),
    (_deep_pixels_are_not_spread, lambda given: _tiff_file(bits=12, colours=1, extra=()), AssertionError),
    (
        _another_channel_counts_as_alpha,
        lambda given: _tiff_file(bits=16, colours=3, extra=(0,)),
        AssertionError,
    ),
    (
        _nothing_is_noted,
        lambda given: test_formats.test_other_pictures_in_a_file_are_told_of(),
        AssertionError,
    ),
    (
        _all_of_exif_is_read,
        lambda given: test_metadata.test_odd_exif_turns_as_it_says_and_is_kept(
            "jpg", "ill-typed", 6, given["tmp_path"]
        ),
        ImageError,
    ),
    (
        _want_of_memory_is_corruption,
        lambda given: test_formats.test_want_of_memory_is_no_corruption(
            given["monkeypatch"], given["tmp_path"]
        ),
        ImageError,
    ),
    (
        _temporary_names_hold_the_name,
        lambda given: test_paths.test_a_name_of_255_bytes_is_no_hindrance(given["tmp_path"], given["capsys"]),
        AssertionError,
    ),
    (
        _layouts_are_asked_for_under_transforms,
        lambda given: test_haar.test_both_directions_are_vectorised(),
        RuntimeError,
    ),
    (
        _containers_are_not_looked_at,
        lambda given: test_process.test_cores_are_what_a_container_is_allowed(
            given["tmp_path"], given["monkeypatch"], {"cpu.max": "200000 100000"}, 2
        ),
        AssertionError,
    ),
]


def _tiff_file(bits: int, colours: int, extra: tuple[int, ...]) -> None:
    """The property for one example, without the search for a smaller one."""
    test: Any = test_formats.test_tiff_files_are_read_whole_or_told_of_or_refused
    test.hypothesis.inner_test(bits, colours, extra, 1, 0)


@pytest.mark.parametrize("mistake", [True, False], ids=["with the mistake", "without"])
@pytest.mark.parametrize(
    ("make", "check", "failure"), CONTROLS, ids=[make.__name__.lstrip("_") for make, _, _ in CONTROLS]
)
def test_the_check_fails_with_the_mistake_alone(
    make: Callable[[pytest.MonkeyPatch], None],
    check: Callable[[Fixtures], None],
    failure: type[BaseException],
    mistake: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = tiny_weights(tmp_path / "tiny.safetensors")
    tiny = ("--weights", weights, "--jobs", 1)
    given = {"tmp_path": tmp_path, "capsys": capsys, "monkeypatch": monkeypatch, "tiny": tiny}
    if not mistake:
        check(given)
        return
    with pytest.MonkeyPatch.context() as patch:
        make(patch)
        with pytest.raises(failure):
            check(given)
