"""train_by_deadline.py: what is checked and raced before training, and what is left."""

import pytest
import torch
from accelerate.state import AcceleratorState

import train_by_deadline
from invertible_rescaling import iirn_x4, irn_x2, load_checkpoint
from invertible_rescaling.training import program, rehearsal
from invertible_rescaling.training.rehearsal import RehearsalError, check_gradients
from invertible_rescaling.weights import read_metadata
from tests.pictures import pictures

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def lot(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_by_deadline, "RESERVE", 1.0)
    data, val = pictures(tmp_path / "data", 3), pictures(tmp_path / "val", 1, seed=1)
    recipe = ["--model", "iirn_x2", "--blocks", "1", "--patch", "16", "--batch-size", "2", "--start", "none"]

    def call(*training, to="lot", deadline="6s", options=()):
        given = ["--deadline", deadline, "--to", str(tmp_path / to), *options, "--"]
        given += ["--data", str(data), "--val", str(val), *recipe, "--quiet", "--cpu", *map(str, training)]
        return train_by_deadline.main(given), *capsys.readouterr()

    return call


def test_a_lot_checks_races_trains_until_its_deadline_and_leaves_weights_log_and_curve(lot, tmp_path) -> None:
    code, out, _ = lot("--graph", "on", deadline="12s")
    assert code == 0
    assert "gradients against float64: off by" in out
    assert "the step as one graph: losses of 6 steps are off by 0.0e+00" in out
    assert "one graph: " in out
    assert "training with: " in out
    assert sorted(path.name for path in (tmp_path / "lot").iterdir()) == [
        *("best.safetensors", "curve.png", "last.safetensors", "log.jsonl"),
    ]
    assert "4 files, " in out
    facts = read_metadata(tmp_path / "lot" / "last.safetensors")["metadata"]
    assert facts["step"] == facts["val"]["step"] >= 1
    assert (facts["options"]["steps"] or facts["step"]) >= facts["step"]  # none where a busy machine made few
    assert load_checkpoint(tmp_path / "lot" / "best.safetensors").scale == 2


def test_the_state_is_kept_for_a_run_that_goes_on(lot, tmp_path) -> None:
    assert lot("--stop-after", "3", options=["--keep-state"])[0] == 0
    assert (tmp_path / "lot" / "state").is_dir()


def test_checking_and_racing_leave_the_model_as_it_was(lot, tmp_path, monkeypatch) -> None:
    """The weights are those of the run without them."""
    options = ("--stop-after", "1", "--seed", "3", "--lr", "1e-3", "--warmup", "5", "--ema", "0")
    assert lot(*options, "--optimizer", "adam")[0] == 0
    with monkeypatch.context() as patch:
        for name in ("check_gradients", "check_graph"):
            patch.setattr(train_by_deadline, name, lambda *given: None)
        patch.setattr(train_by_deadline, "race", lambda options, *given: options)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert lot(*options, "--optimizer", "adam", to="plain")[0] == 0
    one, two = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("lot", "plain"))
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("make", [iirn_x4, irn_x2])
def test_gradients_agree_with_float64(precision, make) -> None:
    said: list[str] = []
    check_gradients(make(blocks=3), precision, CPU, said.append)
    assert "off by" in said[0]


def test_gradients_that_are_off_by_a_hundredth_are_noticed(monkeypatch) -> None:
    plain = rehearsal.randomize

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * (1.01 if grad.dtype == torch.float32 else 1.0)

    def off(model, gain):
        model = plain(model, gain)
        model.flow[1].phi.register_forward_hook(lambda module, inputs, output: Off.apply(output))
        return model

    monkeypatch.setattr(rehearsal, "randomize", off)
    with pytest.raises(RehearsalError, match=r"off by .* of their norm, more than 1e-03; try --precision no"):
        check_gradients(iirn_x4(), "no", CPU, print)


def test_a_machine_that_fails_its_check_is_not_trained_on(lot, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(rehearsal.TOLERANCES, "no", 0.0)
    code, _, err = lot()
    assert code == 2
    assert "more than 0e+00" in err
    assert not (tmp_path / "lot" / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("training", "complaint"),
    [
        (["--steps", "5"], "--steps after --: the deadline decides that"),
        (["--out", "x", "--fit", "1m"], "--out, --fit after --"),
        (["--lr", "inf"], "--lr"),
    ],
)
def test_what_the_deadline_decides_is_refused(lot, tmp_path, training, complaint) -> None:
    code, _, err = lot(*training)
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1
    assert not (tmp_path / "lot").exists()


def test_folders_in_use_and_deadlines_too_near_are_refused(lot, tmp_path) -> None:
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot" / "a").touch()
    assert "is not empty" in lot()[2]
    assert "--deadline must be at least 3 s, got 2" in lot(to="other", deadline="2s")[2]


def test_an_error_of_training_is_this_programs(lot, monkeypatch) -> None:
    monkeypatch.setattr(program, "main", lambda argv, started, prepare: 2)
    assert lot()[0] == 2
