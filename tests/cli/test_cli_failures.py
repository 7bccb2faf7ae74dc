"""What goes wrong at the shell: one line, an exit code, all other pictures done, and no half of a file."""

import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from invertible_rescaling.files import remove_leftovers, temporary_name, write_atomically
from invertible_rescaling.pipeline import FileTask, PictureRescaler, RescaleOptions
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.networks import ModelChoice
from invertible_rescaling.pipeline.workers import outcomes
from tests.shell import contents, folder_of, photograph, run, run_apart, save, start, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def tiny(weights):
    return ("--weights", weights, "--jobs", 1)


# Usage: code 2, before anything is written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing command"),
        (("shrink",), "No such command 'shrink'"),
        (("downscale",), "Missing argument"),
        (("downscale", "{in}"), "give IN and OUT"),
        (("downscale", "{in}", "{out}", "--bogus"), "No such option"),
        (("downscale", "{in}", "{out}", "--format", "gif"), "gif"),
        (("downscale", "{in}", "{out}", "--jobs", "0"), "--jobs"),
        (("downscale", "{in}", "{out}", "--tile", "30"), "--tile must be a multiple of the scale 4, got 30"),
        (("downscale", "{in}", "{out}", "--tile", "wide"), "--tile takes auto, none or a number"),
        (("downscale", "{in}", "{out}", "--model", "iirn_x9"), "did you mean"),
        (
            ("downscale", "{in}", "{out}", "--model", "esrgan_x4"),
            "no trained weights are shipped",
        ),
        (("downscale", "{in}", "{out}", "--weights", "{in}/0000.png"), "no safetensors file"),
        (("downscale", "{in}", "{out}", "--device", "nonsense"), "no device 'nonsense'"),
        (("downscale", "{in}", "{out}", "--quality", "80"), "--quality is for jpg and webp"),
        (("downscale", "{in}", "{in}"), "is IN and OUT"),
        (("downscale", "{in}", "{in}/0000.png"), "by its name, where a folder is needed"),
        (("downscale", "{in}/0000.png", "{out}/a.png", "--format", "tiff"), "does not go with the name"),
        (
            ("downscale", "{in}/0000.png", "{out}/a.bmp"),
            ".bmp files cannot be written; known: .jpeg, .jpg, .png",
        ),
        (("downscale", "{in}", "{out}.heic"), ".heic files cannot be written"),
        (("downscale", "{in}/0000.png", "{in}", "{out}/a.png"), "where a folder is needed; name another OUT"),
        (("downscale", "{in}", "-"), "nothing is written to standard output"),
        (("upscale", "{in}", "{out}", "--size", "50"), "as in 1920x1080"),
        (("downscale", "{empty}", "{out}"), "no pictures were found"),
        (("roundtrip", "{in}", "--picture", "{out}/a.jpg"), "is a PNG file"),
    ],
)
def test_usage(tmp_path, capsys, arguments, message: str) -> None:
    folder_of(tmp_path / "in", 1)
    (tmp_path / "empty").mkdir()
    names = {name: str(tmp_path / name) for name in ("in", "out", "empty")}
    found = run(capsys, *(argument.format(**names) for argument in arguments))
    if not arguments:
        assert (found.code, "Usage" in found.out, found.err) == (2, True, "")
        return
    assert found.code == 2
    assert len(found.errors) == 1
    assert message in found.errors[0]
    assert not (tmp_path / "out").exists()


def test_two_pictures_for_one_place_are_refused_first(tmp_path, capsys, tiny) -> None:
    save(tmp_path / "in" / "a.png", photograph(8, 8))
    save(tmp_path / "in" / "a.jpg", photograph(8, 8))
    found = run(capsys, "downscale", tmp_path / "in", tmp_path / "out", *tiny)
    assert found.code == 2
    assert f"{tmp_path / 'in' / 'a.jpg'} and {tmp_path / 'in' / 'a.png'} would both become" in found.err
    assert not (tmp_path / "out").exists()
    assert run(capsys, "downscale", tmp_path / "in", tmp_path / "out", "--keep-suffix", *tiny).code == 0
    assert set(contents(tmp_path / "out")) == {"a.jpg.png", "a.png.png"}


def test_an_input_is_never_the_output_of_another(tmp_path, capsys, tiny) -> None:
    first = save(tmp_path / "in" / "sub" / "a.jpg", photograph(8, 8))
    second = save(tmp_path / "in" / "a.png", photograph(8, 8))
    before = contents(tmp_path)
    for arguments in ((first, second, tmp_path / "in"), (second, second)):
        found = run(capsys, "downscale", *arguments, "--force", *tiny)
        assert (found.code, "is an input; name another OUT" in found.err) == (2, True)
    assert contents(tmp_path) == before


# What exists


def test_nothing_is_overwritten_unless_forced(tmp_path, capsys, tiny) -> None:
    folder_of(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    precious = tmp_path / "out" / "0000.png"
    precious.write_bytes(b"precious")
    found = run(capsys, "downscale", tmp_path / "in", tmp_path / "out", *tiny)
    assert found.code == 1
    assert found.out.startswith("1 done, 1 failed in")
    assert "0000.png exists; pass --resume to skip what is done, or --force" in found.errors[0]
    found = run(capsys, "downscale", tmp_path / "in", tmp_path / "out", "--resume", *tiny)
    assert (found.code, found.out.startswith("0 done, 1 skipped, 1 failed in")) == (1, True)
    assert "was not made of this file with this model and quality; pass --force" in found.errors[0]
    assert precious.read_bytes() == b"precious"
    found = run(capsys, "downscale", tmp_path / "in", tmp_path / "out", "--resume", "--force", *tiny)
    assert (found.code, found.out.startswith("1 done, 1 skipped in")) == (0, True)


def test_resume_notices_other_inputs_models_and_damage(tmp_path, capsys, tiny) -> None:
    folder_of(tmp_path / "in", 1)
    down = ("downscale", tmp_path / "in", tmp_path / "out")
    assert run(capsys, *down, *tiny).code == 0
    assert run(capsys, *down, "--resume", *tiny).code == 0
    other = tiny_weights(tmp_path / "other.safetensors", seed=1)
    assert run(capsys, *down, "--resume", "--weights", other, "--jobs", 1).code == 1
    target = tmp_path / "out" / "0000.png"
    good = target.read_bytes()
    target.write_bytes(good[:-20])
    assert run(capsys, *down, "--resume", *tiny).code == 1
    target.write_bytes(good)
    save(tmp_path / "in" / "0000.png", photograph(24, 25, seed=9))
    assert run(capsys, *down, "--resume", *tiny).code == 1
    assert target.read_bytes() == good


def test_resume_goes_on_with_upscale(tmp_path, capsys, tiny) -> None:
    folder_of(tmp_path / "in", 3)
    run(capsys, "downscale", tmp_path / "in", tmp_path / "lr", *tiny)
    up = ("upscale", tmp_path / "lr", tmp_path / "sr")
    assert run(capsys, *up, *tiny).code == 0
    whole = contents(tmp_path / "sr")
    (tmp_path / "sr" / "0001.png").unlink()
    found = run(capsys, *up, "--resume", *tiny)
    assert found.out.startswith("1 done, 2 skipped in")
    assert contents(tmp_path / "sr") == whole


# One picture fails, the others are done


def test_bad_pictures_are_listed_and_the_others_done(tmp_path, capsys, tiny) -> None:
    folder = folder_of(tmp_path / "in", 2)
    (folder / "cut.png").write_bytes((folder / "0000.png").read_bytes()[:200])
    (folder / "empty.jpg").touch()
    (folder / "text.webp").write_text("no picture\nat all")
    (folder / "dangling.png").symlink_to("nowhere")
    (folder / "large.png").write_bytes((save(tmp_path / "l.png", photograph(80, 80))).read_bytes())
    os.mkfifo(folder / "pipe.png")
    frames = [Image.fromarray(photograph(8, 8, seed=seed)) for seed in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    found = run(
        capsys, "downscale", folder, tmp_path / "nowhere.png", tmp_path / "out", "--max-pixels", 6000, *tiny
    )
    assert found.code == 1
    assert sorted(contents(tmp_path / "out")) == ["0000.png", "0001.png"]
    assert found.out.startswith("2 done, 8 failed in")
    told = {Path(line.removeprefix("error: ").split(": ")[0]).name: line for line in found.errors}
    for name, message in {
        "cut.png": "",
        "empty.jpg": "the file is empty",
        "text.webp": "no image in a format that is known",
        "dangling.png": "No such file or directory",
        "large.png": "80x80 is 6,400 pixels, over the limit of 6,000",
        "pipe.png": "no picture, but a device, a pipe or a folder",
        "moving.gif": "is animated (3 frames)",
        "nowhere.png": "there is no such file or folder",
    }.items():
        assert message in told[name]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, capsys, tiny) -> None:
    folder = folder_of(tmp_path / "in", 2)
    save(folder / "large.png", np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16000, hard))  # as good as a full disk, for large files
    try:
        found = run(capsys, "downscale", folder, tmp_path / "out", *tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.code == 1
    assert found.errors == [
        f"error: {folder / 'large.png'}: File too large ({tmp_path / 'out' / 'large.png'})"
    ]
    assert sorted(contents(tmp_path / "out")) == ["0000.png", "0001.png"]


def test_a_target_that_cannot_be_written_is_named(tmp_path, capsys, tiny) -> None:
    folder = folder_of(tmp_path / "in", 1)
    save(folder / "sub" / "a.png", photograph(8, 8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file in the way")
    found = run(capsys, "downscale", folder, tmp_path / "out", *tiny)
    assert (found.code, found.out.startswith("1 done, 1 failed in")) == (1, True)
    assert str(folder / "sub" / "a.png") in found.errors[0]


def test_folders_and_targets_without_permission(tmp_path, capsys, tiny, monkeypatch) -> None:
    folder = folder_of(tmp_path / "in", 1)
    save(folder / "locked" / "a.png", photograph(8, 8))
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = run(capsys, "downscale", folder, tmp_path / "out", *tiny)
    assert (found.code, found.out.startswith("1 done, 1 failed in")) == (1, True)
    assert found.errors == [f"error: {folder / 'locked'}: cannot be read: Permission denied"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory")])
def test_want_of_memory_is_named(tmp_path, capsys, tiny, monkeypatch, error: Exception) -> None:
    folder_of(tmp_path / "in", 1)

    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(PictureRescaler, "downscale", fail)
    found = run(capsys, "downscale", tmp_path / "in", tmp_path / "out", *tiny)
    assert (found.code, len(found.errors)) == (1, 1)
    assert "not enough memory for it" in found.errors[0]
    assert "try --jobs 1, or a smaller --tile" in found.errors[0]


@pytest.mark.parametrize("error", [IndexError("list index out of range"), ValueError(""), RuntimeError()])
def test_nothing_that_a_package_raises_ends_a_run(tmp_path, capsys, tiny, monkeypatch, error) -> None:
    folder = folder_of(tmp_path / "in", 3)
    downscale, calls = PictureRescaler.downscale, []

    def fail_once(self, picture, **options):
        calls.append(picture)
        if len(calls) == 2:
            raise error
        return downscale(self, picture, **options)

    monkeypatch.setattr(PictureRescaler, "downscale", fail_once)
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    found = run(capsys, "downscale", folder, tmp_path / "out", *tiny)
    assert (found.code, found.errors) == (1, [f"error: {folder / '0001.png'}: {told}"])
    assert sorted(contents(tmp_path / "out")) == ["0000.png", "0002.png"]
    calls.clear()
    compared = run(capsys, "roundtrip", folder, "--rows", 0, "--weights", tiny[1])
    assert (compared.code, compared.errors) == (1, [f"error: {folder / '0001.png'}: {told}"])


def test_an_interruption_is_no_failure_of_a_picture(tmp_path, capsys, tiny, monkeypatch) -> None:
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(PictureRescaler, "downscale", interrupt)
    assert run(capsys, "downscale", folder_of(tmp_path / "in", 3), tmp_path / "out", *tiny).code == 130


def test_more_metadata_than_a_format_holds_costs_a_note(tmp_path, capsys, tiny) -> None:
    text = PngInfo()
    text.add_text("workflow", "node " * 20_000)
    save(tmp_path / "in" / "a.png", photograph(24, 24), pnginfo=text)
    assert run(capsys, "downscale", tmp_path / "in", tmp_path / "lr", *tiny).code == 0
    found = run(capsys, "upscale", tmp_path / "lr", tmp_path / "sr", "--format", "jpg", *tiny)
    assert (found.code, found.errors) == (0, [])
    assert "note: the text workflow (100,000 bytes) does not fit into jpg and is left out (" in found.err
    assert "made by: invertible_rescaling" in run(capsys, "info", tmp_path / "sr" / "a.jpg").out


def test_a_script_without_a_guard_is_told_so(tmp_path, weights) -> None:
    folder = folder_of(tmp_path / "in", 3)
    arguments = ["downscale", str(folder), str(tmp_path / "out"), "--weights", str(weights), "--jobs", "2"]
    script = tmp_path / "unguarded.py"
    script.write_text(f"import sys; from invertible_rescaling.cli import main; sys.exit(main({arguments!r}))")
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith(
        "error: no worker process could start: its worker process ended with code 1. "
    )
    assert "under `if __name__ == '__main__':`" in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_worker_that_dies_takes_one_picture_with_it(tmp_path, weights) -> None:
    folder = folder_of(tmp_path / "in", 6)
    tasks = [FileTask(path, tmp_path / "out" / path.name) for path in sorted(folder.iterdir())]
    options = RescaleOptions("downscale", ModelChoice(None, str(weights)))
    running = outcomes(tasks, options, 2, 1)
    found = [next(running)]
    children = _children()
    assert len(children) == 2
    os.kill(children[0], signal.SIGKILL)
    found += running
    assert sorted(outcome.source for outcome in found) == [task.source for task in tasks]
    failed = [outcome for outcome in found if outcome.status == "failed"]
    assert len(failed) <= 1  # none if it was killed between two pictures
    assert all("its worker process ended with code -9" in outcome.problem for outcome in failed)
    assert not _children()


def _children() -> list[int]:
    """Worker processes of this one, oldest first."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            command = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and "spawn_main" in command:
            found.append(int(status.parent.name))
    return sorted(found)


# Interruptions


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_an_interruption_ends_cleanly(tmp_path, weights, number: int, jobs: int) -> None:
    folder, out = folder_of(tmp_path / "in", 400), tmp_path / "out"
    options = ("--weights", weights, "--jobs", jobs)
    with start("downscale", folder, out, *options, start_new_session=True) as process:
        _wait_for(lambda: out.is_dir() and len(list(out.glob("*.png"))) > 2)
        os.killpg(process.pid, number)  # as a terminal does
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "error: interrupted; what is done is whole, and --resume goes on from there"
    done = contents(out)
    assert 2 < len(done) < 400
    assert not any(name.endswith(".tmp") for name in done)
    assert said.startswith(tuple(f"{count} done in" for count in range(len(done) - 2, len(done) + 1)))


def test_nohup_protects_a_run(tmp_path, weights) -> None:
    folder, out = folder_of(tmp_path / "in", 40), tmp_path / "out"
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN), "start_new_session": True}
    with start("downscale", folder, out, "--weights", weights, "--jobs", 2, **ignored) as process:
        _wait_for(lambda: out.is_dir() and len(list(out.glob("*.png"))) > 2)
        os.killpg(process.pid, signal.SIGHUP)  # as a terminal does that is closed
        said, errors = process.communicate(timeout=60)
    assert (process.returncode, said.split(" in ")[0], errors) == (0, "40 done", "")


def _wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_a_killed_run_left_is_removed(tmp_path, capsys, tiny) -> None:
    folder, out = folder_of(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    ended, running = (temporary_name("0000.png", pid) for pid in (gone.pid, os.getppid()))
    left = {running, temporary_name("other.png", gone.pid), ".0000.png.tmp"}  # the last two not of this run
    for name in {ended} | left:
        (out / name).write_bytes(b"half")
    assert run(capsys, "downscale", folder, out, *tiny).code == 0
    assert set(contents(out)) == left | {"0000.png"}


def test_leftovers_are_known_by_their_names(tmp_path) -> None:
    remove_leftovers(tmp_path / "nowhere", {"a"})
    write_atomically(tmp_path / "a", b"whole")
    remove_leftovers(tmp_path, {"a"})
    assert contents(tmp_path) == {"a": b"whole"}


# What is told


def test_off_a_terminal_there_is_no_bar(tmp_path, weights) -> None:
    folder_of(tmp_path / "in", 3)
    found = run_apart("downscale", tmp_path / "in", tmp_path / "out", "--weights", weights, "--jobs", 1)
    assert (found.code, found.err) == (0, "")
    quiet = run_apart("downscale", tmp_path / "in", tmp_path / "o2", "--weights", weights, "--jobs", 1, "-q")
    assert quiet == type(quiet)(0, "", "")


def on_a_terminal(*arguments: object) -> tuple[int, str, bytes]:
    """The exit code, standard output, which is no terminal, and what is shown on one as standard error."""
    ours, theirs = os.openpty()
    with start(*arguments, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        out, _ = process.communicate()
    os.close(ours)
    return process.returncode, out, shown


def test_on_a_terminal_there_is_a_bar_with_the_time_left(tmp_path, weights) -> None:
    folder_of(tmp_path / "in", 30)
    arguments = (tmp_path / "in", tmp_path / "out", "--weights", weights, "--jobs", 1)
    code, _, shown = on_a_terminal("downscale", *arguments)
    assert code == 0
    assert all(part in shown for part in (b"downscale", b"30/30", b"0:00:"))


def test_one_large_picture_has_a_bar_and_a_small_one_none(tmp_path, weights) -> None:
    source = save(tmp_path / "a.png", photograph(64, 64))
    large = on_a_terminal("downscale", source, tmp_path / "b.png", "--weights", weights, "--tile", 16)
    assert large[0] == 0
    assert b"1/1" in large[2]
    small = on_a_terminal("downscale", source, tmp_path / "c.png", "--weights", weights)
    assert (small[0], small[2]) == (0, b"")


def test_the_table_of_roundtrip_is_apart_from_its_bar(tmp_path, weights) -> None:
    code, out, shown = on_a_terminal(
        "roundtrip", folder_of(tmp_path / "in", 3), "--rows", 0, "--weights", weights
    )
    assert code == 0
    assert b"3/3" in shown
    assert len(out.splitlines()) == 6  # two of the head, three pictures, their mean


def test_notes_are_told_once(tmp_path, capsys, tiny) -> None:
    for index in range(5):
        image = Image.fromarray(photograph(8, 8, seed=index)).quantize(8)
        (tmp_path / "in").mkdir(exist_ok=True)
        image.save(tmp_path / "in" / f"{index}.png")
    found = run(capsys, "downscale", tmp_path / "in", tmp_path / "out", *tiny)
    lines = found.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("note: the palette became RGB (")
    assert lines[0].endswith("2.png and 2 more)")


def test_names_are_not_markup(tmp_path, capsys, tiny) -> None:
    save(tmp_path / "[red]a[" / "b :smile: %s {x}\n.png", photograph(8, 8))
    (tmp_path / "[red]a[" / "bad\nname.png").write_bytes(b"bad")
    found = run(capsys, "downscale", tmp_path / "[red]a[", tmp_path / "out", *tiny)
    assert found.code == 1
    assert found.errors[0].startswith(f"error: {tmp_path}/[red]a[/bad name.png: it is corrupt, or no image")
    assert len(contents(tmp_path / "out")) == 1
    assert Console.of().quiet is False


def test_threads_are_put_back(tmp_path, capsys, tiny) -> None:
    before = torch.get_num_threads()
    folder_of(tmp_path / "in", 1)
    run(capsys, "downscale", tmp_path / "in", tmp_path / "out", *tiny)
    assert torch.get_num_threads() == before


STRANGE = (b"bytes\xff.png", b"line\nend.png", b"\x1b[31mred.png", "Größe.png".encode())


def test_files_of_any_name(tmp_path, weights, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of in one line each, with nothing in it that a terminal would obey."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")  # of the two processes of their own
    monkeypatch.setenv("COLUMNS", "200")
    folder, out = folder_of(tmp_path / "in", 1), tmp_path / "out"
    (first,) = folder.iterdir()
    for name in STRANGE:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(first.read_bytes())
    done = run(capsys, "downscale", folder, out, "--weights", weights)
    assert (done.code, done.err) == (0, "")
    assert sorted(os.listdir(os.fsencode(out))) == sorted([*STRANGE, first.name.encode()])
    for call, umlauts in ((partial(run, capsys), True), (run_apart, False)):
        again = call("downscale", folder, out, "--weights", weights)
        assert again.code == 1
        assert len(again.err.splitlines()) == len(again.errors) == 1  # for all five
        compared = call("roundtrip", folder, "--weights", weights, "--rows", 0)
        assert (compared.code, compared.err) == (0, "")
        assert len(compared.out.splitlines()) == 2 + 5 + 1  # head, pictures, mean
        for word in (r"bytes\udcff", r"line\nend"):
            assert word in compared.out
        assert "\x1b" not in again.err + compared.out
        assert ("Größe" in compared.out) == umlauts
    told = run(capsys, "info", Path(os.fsdecode(os.fsencode(out) + b"/" + STRANGE[0])))
    assert told.code == 0


def test_many_failures_of_one_cause_are_one_line(tmp_path, capsys, tiny) -> None:
    folder = folder_of(tmp_path / "in", 5)
    run(capsys, "downscale", folder, tmp_path / "out", *tiny)
    (folder / "bad.png").write_bytes(b"none")
    found = run(capsys, "downscale", folder, tmp_path / "out", *tiny)
    assert (found.code, found.out.startswith("0 done, 6 failed in")) == (1, True)
    shown = ", ".join(str(folder / f"{number:04d}.png") for number in range(3))
    assert sorted(found.errors) == [
        f"error: {folder / 'bad.png'}: it is corrupt, or no image in a format that is known here",
        "error: its output exists; pass --resume to skip what is done, or --force to overwrite "
        f"({shown} and 2 more)",
    ]


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_computed(
    tmp_path, capsys, tiny, monkeypatch
) -> None:
    folder = folder_of(tmp_path / "in", 5)
    monkeypatch.setattr(os, "access", lambda _path, mode, **_options: not mode & os.W_OK)
    monkeypatch.setattr(PictureRescaler, "downscale", lambda *_, **_options: pytest.fail("it was computed"))
    found = run(capsys, "downscale", folder, tmp_path / "out" / "deep", *tiny)
    assert found.code == 1
    assert found.errors[0].startswith(f"error: Permission denied ({tmp_path / 'out' / 'deep'}) (")
    assert not (tmp_path / "out").exists()


def test_resume_notices_another_quality(tmp_path, capsys, tiny) -> None:
    folder = folder_of(tmp_path / "in", 1)
    down = ("downscale", folder, tmp_path / "out", "--format", "jpg", "--allow-lossy", *tiny)
    assert run(capsys, *down, "--quality", 90).code == 0
    assert run(capsys, *down, "--quality", 90, "--resume").out.startswith("0 done, 1 skipped")
    found = run(capsys, *down, "--quality", 80, "--resume")
    assert (found.code, "with this model and quality" in found.err) == (1, True)


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "invertible_rescaling", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == version("invertible_rescaling")


def test_the_name_of_a_model_that_is_not_known_is_not_made_up(tmp_path, capsys, tiny) -> None:
    source = save(tmp_path / "a.png", photograph(16, 16))
    assert run(capsys, "downscale", source, tmp_path / "small.png", *tiny).code == 0
    assert "model: unnamed_x4, scale 4" in run(capsys, "info", tmp_path / "small.png").out
    found = run(capsys, "upscale", tmp_path / "small.png", tmp_path / "back.png")
    assert (found.code, "pass their file as --weights" in found.err) == (1, True)
    assert run(capsys, "upscale", tmp_path / "small.png", tmp_path / "back.png", *tiny).code == 0
