"""train_slice.py: what a slice leaves, going on from it, and slices that are not whole."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

import train_div2k
import train_slice
from invertible_rescaling import iirn_x4, load_checkpoint, save_checkpoint
from invertible_rescaling.checkpoint import read_metadata
from invertible_rescaling.images import read_image
from tests.pictures import pictures
from training.state import save_state

ROOT = Path(__file__).parents[1]
RECIPE = [
    "--model",
    "iirn_x2",
    "--blocks",
    "1",
    "--patch",
    "16",
    "--batch-size",
    "2",
    "--warmup",
    "2",
    "--start",
    "none",
]
RHYTHM = ["--log-every", "1", "--validate-every", "4", "--save-every", "100", "--quiet", "--cpu"]


@pytest.fixture(autouse=True)
def _fresh_accelerator(monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.delenv("OUT", raising=False)


@pytest.fixture
def training(tmp_path):
    data, val = pictures(tmp_path / "data", 3), pictures(tmp_path / "val", 2, seed=1)
    return ["--data", str(data), "--val", str(val), "--steps", "12", *RECIPE, *RHYTHM]


@pytest.fixture
def one(training, tmp_path):
    assert train_slice.main(["--to", str(tmp_path / "one"), "--", *training, "--stop-after", "5"]) == 0
    return tmp_path / "one"


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_slice_leaves_all_that_the_next_needs_in_few_small_files(one):
    state = "state/step-00000005/"
    assert files_of(one) == [
        *("best.safetensors", "curve.png", "last.safetensors", "log.jsonl"),
        *(state + "000.safetensors", state + "state.json"),
    ]
    assert load_checkpoint(one / "best.safetensors").scale == 2
    assert read_metadata(one / "last.safetensors")["metadata"]["step"] == 5
    assert read_image(one / "curve.png").shape[0] == 3


def test_slices_go_on_from_read_only_ones_without_the_last_weights(one, training, tmp_path):
    (one / "last.safetensors").unlink()
    for path in [*one.rglob("*"), one]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    two = tmp_path / "two"
    call = ["--from", str(one), "--to", str(two), "--", *training, "--stop-after", "100"]
    assert train_slice.main(call) == 0
    assert read_metadata(two / "last.safetensors")["metadata"]["step"] == 12
    assert os.access(two / "state", os.W_OK)
    for path in [one, *one.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_the_folder_of_a_slice_is_that_of_a_run(one, training):
    assert train_div2k.main([*training, "--out", str(one)]) == 0
    assert read_metadata(one / "last.safetensors")["metadata"]["step"] == 12


def test_out_is_where_a_slice_goes_unasked(training, tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path / "unasked"))
    assert train_slice.main(["--", *training, "--stop-after", "1"]) == 0
    assert (tmp_path / "unasked" / "state").is_dir()


def refused(capsys, *arguments):
    assert train_slice.main([*map(str, arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("train_slice.py: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda one: shutil.rmtree(one), "there is no slice at"),
        (lambda one: shutil.rmtree(one / "state"), "it has no state"),
        (lambda one: next(one.glob("state/*/000.safetensors")).unlink(), "000.safetensors"),
        (
            lambda one: next(one.glob("state/*/000.safetensors")).write_bytes(b"torn"),
            "does not match its hash",
        ),
        (lambda one: next(one.glob("state/*/state.json")).unlink(), "state.json"),
        (lambda one: (one / "best.safetensors").unlink(), "best.safetensors is missing"),
        (lambda one: (one / "best.safetensors").write_bytes(b"torn"), "best.safetensors"),
        (lambda one: (one / "log.jsonl").unlink(), "log.jsonl is missing"),
    ],
)
def test_a_slice_that_is_not_whole_is_refused_in_one_line(one, training, tmp_path, capsys, damage, message):
    damage(one)
    two = tmp_path / "two"
    capsys.readouterr()
    assert message in refused(capsys, "--from", one, "--to", two, "--", *training)
    assert not two.exists()


def test_what_a_slice_decides_itself_and_folders_in_use_are_refused(tmp_path, capsys):
    to = tmp_path / "to"
    assert "--out, --time-limit after --" in refused(capsys, "--to", to, "--", "--out=a", "--time-limit", "9")
    assert "give --to DIR" in refused(capsys, "--", "--data", "x")
    to.mkdir()
    (to / "a").touch()
    assert "is not empty" in refused(capsys, "--to", to, "--", "--data", "x")


def test_options_of_training_are_checked_before_anything_is_copied(
    one, training, tmp_path, capsys, monkeypatch
):
    two = tmp_path / "two"
    monkeypatch.setattr(train_slice, "restore", None)
    assert "--lr" in refused(capsys, "--from", one, "--to", two, "--", *training, "--lr", "inf")
    assert "--time-limit after --" in refused(capsys, "--to", two, "--", *training, "--time-l", "9")
    with pytest.raises(SystemExit):
        train_slice.main(["--from", str(one), "--to", str(two), "--", *training, "--no-such-option"])
    assert not two.exists()


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("how", [2, RuntimeError("out of memory")])
def test_a_slice_that_came_to_nothing_leaves_the_folder_as_it_was(
    one, training, tmp_path, monkeypatch, there, how
):
    two = tmp_path / "two"
    if there:
        two.mkdir()
    call = ["--from", str(one), "--to", str(two), "--", *training]

    def fail(argv, started):
        assert (two / "state").is_dir()
        if isinstance(how, Exception):
            raise how
        return how

    with monkeypatch.context() as patch:
        patch.setattr(train_div2k, "main", fail)
        if isinstance(how, Exception):
            with pytest.raises(RuntimeError, match="out of memory"):
                train_slice.main(call)
        else:
            assert train_slice.main(call) == 2
    assert two.exists() == there
    assert not there or not list(two.iterdir())
    assert files_of(one)


def test_an_error_after_some_steps_keeps_them_as_they_are(one, training, tmp_path, monkeypatch, capsys):
    def fail(argv, started):
        save_state(tmp_path / "two" / "state", 7, {"x": torch.zeros(1)}, {})
        return 2

    monkeypatch.setattr(train_div2k, "main", fail)
    capsys.readouterr()
    assert train_slice.main(["--from", str(one), "--to", str(tmp_path / "two"), "--", *training]) == 2
    assert {path.name for path in (tmp_path / "two" / "state").iterdir()} == {
        "step-00000005",
        "step-00000007",
    }
    assert "slice:" not in capsys.readouterr().out


def test_a_disk_that_fills_up_while_a_slice_is_copied_leaves_nothing(
    one, training, tmp_path, monkeypatch, capsys
):
    plain = shutil.copyfile

    def full(source, target):
        if Path(target).name == "state.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return plain(source, target)

    two = tmp_path / "two"
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        assert "No space left" in refused(capsys, "--from", one, "--to", two, "--", *training)
    assert not two.exists()
    (two / train_slice.PARTIAL).mkdir(parents=True)  # what a copy that was killed leaves
    assert train_slice.restore(one, two) == 5
    assert files_of(two) == [name for name in files_of(one) if name != "curve.png"]


def test_curves_that_cannot_be_written_are_one_line(one, monkeypatch, capsys):
    def full(runs, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(train_slice, "draw_curves", full)
    capsys.readouterr()
    train_slice.tidy(one)
    assert "no curves: " in capsys.readouterr().out


def test_too_many_or_too_large_files_are_said(one, capsys, monkeypatch):
    monkeypatch.setattr(train_slice, "MOST_FILES", 3)
    train_slice.tidy(one)
    said = capsys.readouterr().out
    assert f"--from {one} goes on from there" in said
    assert "more than 3 files" in said


def test_the_published_network_fits_into_eight_files(tmp_path):
    """Its state is written as a run writes it: weights, average and Adam's two moments."""
    model = iirn_x4()
    tensors = {
        f"{part}.{n}": t.clone() for part in ("model", "ema", "m", "v") for n, t in model.state_dict().items()
    }
    save_state(tmp_path / "state", 1, tensors, {})
    for name in train_slice.WEIGHTS:
        save_checkpoint(model, tmp_path / name)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert len(sizes) + 2 <= train_slice.MOST_FILES  # the log and the curve come on top
    assert max(sizes) < 16 * 10**6


@pytest.mark.slow
def test_three_slices_on_three_machines_end_as_one_uninterrupted_run(training, tmp_path):
    def run(*command):
        environment = {k: v for k, v in os.environ.items() if k != "OUT"} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, command)], env=environment, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = []
    for number in (1, 2, 3):
        to = tmp_path / f"machine{number}" / "slice"
        call = [*before, "--to", to, "--", *training, *(["--stop-after", "5"] if number < 3 else [])]
        said = run(ROOT / "examples" / "train_slice.py", *call)
        assert ("done: 12 steps" in said) == (number == 3)
        before = ["--from", to]
        if number > 1:
            shutil.rmtree(tmp_path / f"machine{number - 1}")
    run(ROOT / "examples" / "train_div2k.py", *training, "--out", tmp_path / "whole")
    cut, whole = tmp_path / "machine3" / "slice", tmp_path / "whole"
    for name in train_slice.WEIGHTS:
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    mine, theirs = (load_checkpoint(folder / "last.safetensors").state_dict() for folder in (cut, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
