"""What takes its time: damaged files by the thousand, runs killed at random, a thousand pictures."""

import io
import os
import random
import signal
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from invertible_rescaling.errors import ImageError
from invertible_rescaling.images import Picture, decode_picture
from tests.images.test_pictures import PROFILE, _exif
from tests.shell import contents, folder_of, photograph, run_apart, start, tiny_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


# Damaged files


def _files(form: str) -> list[bytes]:
    """Good files of a format, of several kinds of pixels."""
    rich = {"exif": _exif(6), "icc_profile": PROFILE}
    grey, colour, alpha = (photograph(21, 17, channels) for channels in (1, 3, 4))
    deep = photograph(21, 17, 3, deep=True)
    if form == "PNG":
        palette = Image.fromarray(colour).quantize(16)
        from invertible_rescaling.images import encode_picture

        picture = decode_picture(_tiff(deep, photometric="rgb"))
        plain = [_save(array, form, **rich) for array in (grey, colour, alpha, deep[..., 0])]
        return [*plain, _of(palette, form), encode_picture(picture, "png")]
    if form == "JPEG":
        return [_save(grey, form, **rich), _save(colour, form, **rich), _save(colour, form, progressive=True)]
    if form == "WEBP":
        return [_save(colour, form, **rich), _save(alpha, form, lossless=True), _save(alpha, form, **rich)]
    packed = [_save(colour, form, compression=how, **rich) for how in ("raw", "tiff_lzw", "jpeg", "packbits")]
    deeps = [_tiff(deep, photometric="rgb", compression=how) for how in (None, "zlib", "lzw")]
    return [*packed, *deeps, _tiff(deep[..., 0], photometric="miniswhite", tile=(16, 16))]


def _save(array: np.ndarray, form: str, **options: object) -> bytes:
    return _of(Image.fromarray(array), form, **options)


def _of(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def _tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut short, with bytes flipped, with a stretch left out, doubled or overwritten, or several of these."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if len(content) < 4:
            return content
        at, length = chance.randrange(len(content)), chance.randrange(1, 40)
        how = chance.randrange(6)
        if how == 0:
            content = content[:at]
        elif how == 1:
            content = content[:at] + content[at + length :]
        elif how == 2:
            content = content[: at + length] + content[at:]
        elif how == 3:
            content = content[:at] + chance.randbytes(length) + content[at + length :]
        else:  # headers are short, and are to have their share
            changed = bytearray(content)
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(min(len(changed), 200) if how == 4 else len(changed))
                changed[at] ^= 1 << chance.randrange(8)
            content = bytes(changed)
    return content


def _mended(content: bytes) -> bytes:
    """A PNG file with the checksums of what its chunks have become."""
    mended, at = content[:8], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        body = content[at + 4 : at + 8 + length]
        mended += content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return mended


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_damaged_files_are_read_or_refused_in_a_line(form: str, capfd) -> None:
    chance, files = random.Random(form), _files(form)
    for content in files:
        assert isinstance(decode_picture(content), Picture)
    refused = 0
    capfd.readouterr()
    for case in range(6000):
        content = _damaged(chance.choice(files), chance)
        if form == "PNG" and case % 3:  # whose checksums would let nothing through
            content = _mended(content)
        try:
            picture = decode_picture(content, max_pixels=100_000)
        except ImageError as error:
            message = str(error)
            assert message, case
            assert "\n" not in message, case
            assert " at 0x" not in message, case
            refused += 1
        else:
            assert picture.size[0] * picture.size[1] <= 100_000
    assert 600 < refused < 6000
    said = capfd.readouterr()
    assert said.out == ""
    assert form == "TIFF" or said.err == ""  # libtiff prints, which the command line sees to


def test_a_folder_of_damaged_files(tmp_path, weights) -> None:
    chance = random.Random(0)
    suffixes = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif"}
    (tmp_path / "in").mkdir()
    for form, suffix in suffixes.items():
        files = _files(form)
        for index in range(100):
            (tmp_path / "in" / f"{form}{index}{suffix}").write_bytes(_damaged(chance.choice(files), chance))
    options = ("--weights", weights, "--jobs", 2, "--max-pixels", 100_000)
    for direction, made in (("downscale", "lr"), ("upscale", "sr")):
        found = run_apart(direction, tmp_path / ("in" if made == "lr" else "lr"), tmp_path / made, *options)
        lines = found.err.splitlines()
        assert all(line.startswith(("note: ", "error: ")) for line in lines), found.err
        count = len(list((tmp_path / made).iterdir()))
        assert found.out.startswith(f"{count} done")
        if made == "lr":
            assert found.code == 1
            assert len(lines) - sum(line.startswith("note: ") for line in lines) == 400 - count
        else:
            assert (found.code, lines) == (0, [])


# Runs that are killed


def test_killed_again_and_again_and_resumed_it_makes_the_same_files(tmp_path, weights) -> None:
    folder, chance = folder_of(tmp_path / "in", 120, side=64), random.Random(0)
    options = ("--weights", weights, "--jobs", 2)
    assert run_apart("downscale", folder, tmp_path / "whole", *options).code == 0
    whole = contents(tmp_path / "whole")
    out, killed, leftovers = tmp_path / "out", 0, 0
    while killed < 8:
        before = _made(out)
        if before > 100:  # the end is near; begin anew
            for path in out.iterdir():
                path.unlink()
            before = 0
        with start("downscale", folder, out, "--resume", *options, start_new_session=True) as process:
            _until(lambda before=before: process.poll() is not None or _made(out) > before)
            time.sleep(chance.uniform(0, 0.1))
            # Now all of them, as when the power goes; now the one that the user sees.
            (os.killpg if killed % 2 else os.kill)(process.pid, signal.SIGKILL)
            process.communicate()
            _until(lambda: _gone(process.pid))
        assert process.returncode == -signal.SIGKILL
        killed += 1
        leftovers += sum(path.name.endswith(".tmp") for path in out.iterdir())
        made = contents(out)
        for name in made.keys() & whole.keys():
            assert made[name] == whole[name]
    found = run_apart("downscale", folder, out, "--resume", *options)
    assert (found.code, found.err) == (0, "")
    assert contents(out) == whole
    assert leftovers < 40  # they may happen, and are gone now


def _made(folder: Path) -> int:
    return len(list(folder.glob("*.png"))) if folder.is_dir() else 0


def _until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def _gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


# Many pictures


def test_a_thousand_pictures_take_no_more_memory_than_a_few(tmp_path, weights) -> None:
    folder, out = folder_of(tmp_path / "in", 1000, side=64), tmp_path / "out"
    taken: list[tuple[int, int]] = []
    with start(
        "downscale", folder, out, "--weights", weights, "--jobs", 2, start_new_session=True
    ) as process:
        while process.poll() is None:
            taken.append((_made(out), _memory(process.pid)))
            time.sleep(0.1)
        said, _ = process.communicate()
    assert said.startswith("1000 done in ")
    assert _made(out) == 1000
    early = max(memory for made, memory in taken if made < 300)
    late = max(memory for made, memory in taken if made >= 300)
    assert late < early + 30 * 2**20


def _memory(group: int) -> int:
    """Bytes that all processes of a group have to themselves."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[2]) == group:
                resident, shared = map(int, (status.parent / "statm").read_text().split()[1:3])
                total += (resident - shared) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            continue
    return total
