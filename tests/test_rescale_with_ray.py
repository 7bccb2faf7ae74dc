"""The example that spreads the command line's work over a cluster: the same files, and workers that die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import rescale_with_ray
from tests.shell import contents, folder_of, photograph, run_apart, save, tiny_weights

EXAMPLE = Path(rescale_with_ray.__file__)
cluster = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray, the extra [ray]")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start the example on two workers of one thread, in an environment that is known by ``tmp_path``."""
    place = tempfile.mkdtemp(prefix="ray")  # pytest's are too long for the names of sockets
    started: list[subprocess.Popen] = []

    def begin(*arguments: object, script: Path = EXAMPLE) -> subprocess.Popen:
        paths = os.pathsep.join(map(str, (EXAMPLE.parent, EXAMPLE.parents[1])))
        ours = {"OMP_NUM_THREADS": "1", "RAY_TMPDIR": place, "PYTHONPATH": paths, "OF_TEST": str(tmp_path)}
        command = [sys.executable, str(script), *map(str, arguments), "--workers", "2"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(
            subprocess.Popen(command, env=os.environ | ours, text=True, start_new_session=True, **pipes)
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    _until(lambda: not _of_test(tmp_path), 30)
    shutil.rmtree(place)


def finish(process: subprocess.Popen) -> tuple[int, str, list[str]]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err.splitlines()


# The same files


@cluster
@pytest.mark.slow
def test_what_it_makes_is_what_the_command_line_makes(tmp_path, weights, start) -> None:
    folder = folder_of(tmp_path / "in", 20)
    save(folder / "deeper" / "grey.png", photograph(31, 22, 1))
    save(folder / "deeper" / "alpha.png", photograph(17, 40, 4))
    save(folder / os.fsdecode(b"no text \xff.png"), photograph(9, 9))
    (folder / "cut.png").write_bytes((folder / "0000.png").read_bytes()[:200])
    (folder / "empty.jpg").touch()
    report = tmp_path / "report.jsonl"
    with start("downscale", folder, tmp_path / "lr", "--weights", weights, "--report", report) as process:
        code, out, errors = finish(process)
    assert (code, out.startswith("23 done, 2 failed in ")) == (1, True)
    assert [line.split(": ")[:2] for line in sorted(errors)] == [
        ["error", str(folder / "cut.png")],
        ["error", str(folder / "empty.jpg")],
    ]
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert sorted(row["source"] for row in rows) == sorted(map(str, folder.rglob("*.*g")))
    assert {Path(row["source"]).name: row["problem"] for row in rows if row["status"] != "done"} == {
        Path(line.split(": ")[1]).name: line.split(": ", 2)[2] for line in errors
    }
    assert sum(row["status"] == "done" for row in rows) == len(list((tmp_path / "lr").rglob("*.png")))
    assert run_apart("downscale", folder, tmp_path / "lr2", "--weights", weights, "--jobs", 2).code == 1
    assert contents(tmp_path / "lr") == contents(tmp_path / "lr2")

    with start("upscale", tmp_path / "lr", tmp_path / "sr", "--weights", weights) as process:
        assert finish(process)[::2] == (0, [])
    assert (
        run_apart("upscale", tmp_path / "lr", tmp_path / "sr2", "--weights", weights, "--jobs", 2).code == 0
    )
    assert len(contents(tmp_path / "sr")) == 23
    assert contents(tmp_path / "sr") == contents(tmp_path / "sr2")


# Workers that die


@cluster
@pytest.mark.slow
def test_workers_that_are_killed_cost_nothing_but_time(tmp_path, weights, start) -> None:
    folder, out = folder_of(tmp_path / "in", 120, side=160), tmp_path / "out"
    with start("downscale", folder, out, "--weights", weights) as process:
        for least in (5, 40):
            _until(lambda least=least: process.poll() is not None or len(_made(out)) >= least)
            assert process.poll() is None
            busy: list[int] = []
            _until(lambda busy=busy: busy.extend(_of_test(tmp_path, "ray::rescale")) or busy)
            os.kill(busy[0], signal.SIGKILL)
            assert len(_made(out)) < 120
        code, said, errors = finish(process)
    assert (code, said.split(" in ")[0], errors) == (0, "120 done", [])
    assert run_apart("downscale", folder, tmp_path / "out2", "--weights", weights, "--jobs", 2).code == 0
    assert contents(out) == contents(tmp_path / "out2")


DEADLY = """
import os, signal, sys
import rescale_with_ray as example

plain = example.rescale

def deadly(task, options, threads, fresh):
    if task.source.name == "0005.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(task, options, threads, fresh)

example.rescale = deadly
sys.exit(example.main())
"""


@cluster
@pytest.mark.slow
def test_a_picture_that_kills_every_worker_is_reported_and_the_others_done(tmp_path, weights, start) -> None:
    folder, out = folder_of(tmp_path / "in", 24), tmp_path / "out"
    (tmp_path / "deadly.py").write_text(DEADLY)
    with start("downscale", folder, out, "--weights", weights, script=tmp_path / "deadly.py") as process:
        code, said, errors = finish(process)
    assert (code, said.split(" in ")[0]) == (1, "23 done, 1 failed")
    assert errors == [
        f"error: {folder / '0005.png'}: its worker process died 3 times (out of memory? try fewer --workers)"
    ]
    assert run_apart("downscale", folder, tmp_path / "out2", "--weights", weights, "--jobs", 2).code == 0
    whole = contents(tmp_path / "out2")
    assert contents(out) == {name: content for name, content in whole.items() if name != "0005.png"}
    with start("downscale", folder, out, "--weights", weights, "--resume") as process:
        code, said, errors = finish(process)
    assert (code, said.split(" in ")[0], errors) == (0, "1 done, 23 skipped", [])
    assert contents(out) == whole


@cluster
@pytest.mark.slow
def test_an_interruption_ends_cleanly(tmp_path, weights, start) -> None:
    folder, out = folder_of(tmp_path / "in", 120, side=160), tmp_path / "out"
    with start("downscale", folder, out, "--weights", weights) as process:
        _until(lambda: process.poll() is not None or len(_made(out)) >= 5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        code, _, errors = finish(process)
    assert (code, errors) == (
        130,
        ["error: interrupted; what is done is whole, and --resume goes on from there"],
    )
    _until(lambda: not _of_test(tmp_path), 30)
    assert 5 <= len(contents(out)) < 120
    assert set(contents(out)) == {path.name for path in _made(out)}


def _made(folder: Path) -> list[Path]:
    return list(folder.glob("[!.]*.png"))


def _of_test(place: Path, title: str = "") -> list[int]:
    """Processes that a test began, and theirs, oldest first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"OF_TEST={place}\0".encode() in (folder / "environ").read_bytes()
            if ours and (folder / "cmdline").read_text().startswith(title):
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


def _until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# Usage: code 2, before anything is begun


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required"),
        ("shrink {in} {out}", "invalid choice: 'shrink'"),
        ("downscale {in}", "give IN and OUT"),
        ("downscale {in} {out} --workers 0", "must be at least 1"),
        ("downscale {in} {out} --gpus 0", "--gpus over 0"),
        ("downscale {in} {out} --format jpg", "invalid choice: 'jpg'"),
        ("downscale {in} {out} --model iirn_x9", "did you mean"),
        ("upscale {in} {out} --weights {in}/0000.png", "no safetensors file"),
        ("downscale {in} {in}", "is IN and OUT"),
        ("downscale {in}/0000.png {out}/a.jpg", "does not go with the name"),
        ("downscale {in} {out} --report {out}/none/r.jsonl", "No such file or directory"),
    ],
)
def test_usage(tmp_path, capsys, monkeypatch, arguments: str, message: str) -> None:
    monkeypatch.setattr(rescale_with_ray, "find_spec", lambda _name: object())
    folder_of(tmp_path / "in", 1)
    words = arguments.format(**{name: tmp_path / name for name in ("in", "out")}).split()
    try:
        code = rescale_with_ray.main(words)
    except SystemExit as ended:
        code = ended.code
    *_, last = capsys.readouterr().err.splitlines()
    assert code == 2
    assert last.startswith("rescale_with_ray.py: ")
    assert message in last
    assert not (tmp_path / "out").exists()


def test_without_ray_it_says_what_to_install(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(rescale_with_ray, "find_spec", lambda _name: None)
    assert rescale_with_ray.main(["downscale", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "pip install 'invertible_rescaling[ray]'" in capsys.readouterr().err
