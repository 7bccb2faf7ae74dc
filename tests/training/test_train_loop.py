"""train_div2k.py run in this process on tiny pictures: what it leaves, resuming, and bad input."""

import itertools
import json
import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import invertible_rescaling.training.data
import invertible_rescaling.training.run
import invertible_rescaling.training.trainer
from invertible_rescaling import InvertibleRescaler, iirn_x2, load_checkpoint, save_checkpoint, small_x4
from invertible_rescaling.functional import bicubic_resize
from invertible_rescaling.images import from_uint8, read_image, write_image
from invertible_rescaling.testing import randomize
from invertible_rescaling.training import program
from invertible_rescaling.training.build import build_model, chosen_weights
from invertible_rescaling.training.config import TrainingConfig
from invertible_rescaling.training.run import Run
from invertible_rescaling.training.schedule import Average, TrainStep, learning_rate
from invertible_rescaling.weights import read_metadata
from tests.pictures import pictures


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """Accelerate keeps precision and device for the life of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def data(tmp_path):
    return pictures(tmp_path / "data", 3)


@pytest.fixture
def val(tmp_path):
    return pictures(tmp_path / "val", 2, seed=1)


@pytest.fixture
def train(data, tmp_path):
    def call(*arguments, out="out", steps=6, model="iirn_x2", thin=True):
        recipe = ["--blocks", "1", "--patch", "16", "--batch-size", "2", "--warmup", "2", "--lr", "1e-3"]
        recipe += ["--start", "none"]
        if thin and "--weights" not in arguments and model in ("iirn_x2", "irn_x2"):
            recipe += ["--subnet", f"{'crdb' if model == 'iirn_x2' else 'dense'}:growth=4"]
        rhythm = ["--log-every", "1", "--validate-every", "4", "--save-every", "2", "--quiet", "--cpu"]
        fixed = ["--data", str(data), "--out", str(tmp_path / out), "--steps", str(steps), "--model", model]
        return program.main([*fixed, *recipe, *rhythm, *map(str, arguments)])

    return call


def losses(folder):
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def test_a_run_leaves_checkpoints_state_log_and_curves(train, val, tmp_path):
    assert train("--val", val) == 0
    out = tmp_path / "out"
    assert load_checkpoint(out / "best.safetensors").scale == 2
    metadata = read_metadata(out / "last.safetensors")["metadata"]
    assert metadata["step"] == 6
    assert math.isfinite(metadata["val"]["psnr_rgb"])
    assert metadata["val"].keys() >= {"ssim_y", "lr_psnr_rgb", "lr_psnr_y"}
    assert sorted(losses(out)) == [1, 2, 3, 4, 5, 6]
    assert list((out / "tensorboard").glob("events*"))


def test_training_changes_the_weights_and_lowers_the_loss(train, tmp_path):
    assert train("--lr", "2e-3", steps=60) == 0
    by_step = losses(tmp_path / "out")
    first = sum(by_step[s]["total"] for s in range(1, 11))
    assert sum(by_step[s]["total"] for s in range(51, 61)) < first
    weights = load_checkpoint(tmp_path / "out" / "last.safetensors").state_dict()
    assert all(bool(w.any()) for name, w in weights.items() if name.endswith("last.weight"))


def stop_after(monkeypatch, step):
    monkeypatch.setattr(Run, "_must_stop", lambda self, started: self.step >= step)


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        ("irn_x2", []),
        ("iirn_x2", ["--precision", "bf16"]),
        ("iirn_x2", ["--degrade", "jpeg:40-95", "none"]),
    ],
)
def test_a_run_in_three_slices_equals_one_uninterrupted_to_the_last_bit(
    train, val, tmp_path, monkeypatch, model, extra
):
    arguments = ["--val", val, *extra]
    assert train(*arguments, out="whole", steps=7, model=model) == 0
    for step in (1, 5, 7):
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            assert train(*arguments, out="cut", steps=7, model=model) == 0
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert losses(whole) == losses(cut)
    for name in ("last.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_a_run_is_validated_through_what_happens_to_lr(train, val, tmp_path):
    def bicubic(out: str, *more: str) -> float:
        assert train("--val", val, *more, out=out, steps=1) == 0
        lines = map(json.loads, (tmp_path / out / "log.jsonl").read_text().splitlines())
        return next(line["bicubic"]["psnr_rgb"] for line in lines if "bicubic" in line)

    plain = bicubic("plain")
    assert bicubic("stored", "--degrade", "jpeg:20") < plain
    assert bicubic("brighter", "--degrade", "crop:0.5+brightness:0.5-2") == plain


def test_the_log_drops_steps_that_are_made_again(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        train()
    log = tmp_path / "out" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 5, "loss": {"total": 0}}\n{"step": 6, "lo')
    assert train() == 0
    assert sorted(losses(tmp_path / "out")) == [1, 2, 3, 4, 5, 6]
    assert losses(tmp_path / "out")[5]["total"] > 0


def test_a_time_limit_saves_and_stops(train, tmp_path, capsys):
    assert train("--time-limit", "1") == 0
    assert "stopped after step" in capsys.readouterr().out
    assert train() == 0
    assert "going on after step 1" in capsys.readouterr().out
    assert sorted(losses(tmp_path / "out")) == [1, 2, 3, 4, 5, 6]


def test_a_slice_ends_with_its_weights_and_their_figures(train, val, tmp_path, monkeypatch):
    stop_after(monkeypatch, 3)
    assert train("--val", val, "--time-limit", "1h") == 0
    metadata = read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]
    assert metadata["step"] == metadata["val"]["step"] == 3


def test_time_for_a_due_validation_is_reserved(train, val, monkeypatch, capsys):
    monkeypatch.setattr(Run, "_averages", slow_averages(3600.0))
    assert train("--val", val, "--time-limit", "30m") == 0
    assert "stopped after step 3 of 6" in capsys.readouterr().out  # the validation of step 4 would not fit


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed for the program, which only the test moves on."""
    now = [0.0]
    for module in (invertible_rescaling.training.run, invertible_rescaling.training.trainer):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def with_slow_steps(monkeypatch, seconds, clock):
    """Steps of a process take so long: the first of ``seconds`` for the first, ..., the last for the rest."""
    plain = Run.train_one
    pauses = itertools.chain(seconds, itertools.repeat(seconds[-1]))

    def step(self):
        clock[0] += next(pauses)
        return plain(self)

    monkeypatch.setattr(Run, "train_one", step)


def test_a_first_step_that_compiles_leaves_the_rest_of_the_limit_to_the_others(
    train, tmp_path, monkeypatch, clock
):
    with_slow_steps(monkeypatch, [2.5, 0.05], clock)
    assert train("--time-limit", "7", steps=100_000) == 0
    assert 4.5 < clock[0] < 7
    assert newest_step(tmp_path / "out") > 30


def newest_step(out):
    return max((int(path.name[5:13]) for path in (out / "state").glob("step-*")), default=0)


def test_a_due_validation_that_never_fits_is_made_all_the_same(train, val, monkeypatch, capsys):
    monkeypatch.setattr(Run, "_averages", slow_averages(3600.0))
    monkeypatch.setattr(Run, "_try_validation", lambda self: self.pace.validated(3600.0))
    for reached in (3, 5, 6):
        assert train("--val", val, "--time-limit", "30m") == 0
        said = capsys.readouterr().out
        assert f"{'done:' if reached == 6 else f'stopped after step {reached} of'} 6" in said
        assert ("may outrun --time-limit 1800" in said) == (reached > 3)
        assert ("--val-limit" in said) == (reached > 3)


def slow_averages(seconds):
    plain = Run._averages

    def slow(self, rescale, tag):
        self.pace.validated(seconds)
        return plain(self, rescale, tag)

    return slow


def test_how_long_a_validation_takes_is_known_before_the_first(train, val, monkeypatch):
    assert train("--val", val, "--stop-after", "1") == 0
    known = []
    plain = Run.train_one
    monkeypatch.setattr(Run, "train_one", lambda self: known.append(self.pace.validation) or plain(self))
    assert train("--val", val, "--stop-after", "1", "--time-limit", "1h") == 0
    assert 0 < known[0] < 10


def test_a_validation_that_is_cut_off_at_the_end_of_a_slice_costs_no_steps(train, val, tmp_path, monkeypatch):
    def crash(self, *, keep_best=True):
        if self.step:
            raise OSError("killed")

    monkeypatch.setattr(Run, "validate", crash)
    monkeypatch.setattr(Run, "_reserves_validation", True)
    assert train("--val", val, "--time-limit", "1h", "--stop-after", "3", "--save-every", "100") == 2
    assert newest_step(tmp_path / "out") == 3


@pytest.mark.parametrize("theirs", [False, True])
def test_a_slice_ends_alike_in_all_processes(train, val, monkeypatch, theirs):
    """Another process that was asked to stop does not validate: then no process may."""
    validated = []
    plain = Run.validate
    monkeypatch.setattr(
        Run, "validate", lambda self, **how: validated.append(self.step) or plain(self, **how)
    )
    monkeypatch.setattr(Run, "_any", lambda self, flag: flag or (theirs and self.step == 3))
    assert train("--val", val, "--time-limit", "1h", "--stop-after", "3") == 0
    assert validated == ([0] if theirs else [0, 3])


def test_a_crash_while_the_last_weights_are_written_is_made_good(train, val, tmp_path, monkeypatch):
    plain = Run.validate

    def crash(self, **kwargs):
        if self.step == 6:
            raise OSError("power cut")
        plain(self, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "validate", crash)
        assert train("--val", val) == 2
    assert train("--val", val) == 0
    assert read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]["step"] == 6


def test_weights_without_a_state_are_not_overwritten(train, tmp_path, capsys):
    assert train() == 0
    shutil.rmtree(tmp_path / "out" / "state")
    before = (tmp_path / "out" / "last.safetensors").read_bytes()
    for resume in ("auto", "never"):
        assert train("--resume", resume) == 2
        assert "no state to go on from" in capsys.readouterr().err
    assert (tmp_path / "out" / "last.safetensors").read_bytes() == before


def test_other_training_images_are_another_run(train, data, capsys):
    assert train() == 0
    (data / "0000.png").unlink()
    assert train() == 2
    assert "other options or images" in capsys.readouterr().err


def test_other_validation_images_start_the_best_figure_anew(train, val, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert train("--val", val) == 0
    assert train("--val", pictures(tmp_path / "other", 1, seed=9)) == 0
    assert "the best figure starts anew" in capsys.readouterr().out
    entries = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert sum("bicubic" in entry for entry in entries) == 2


def test_the_demo_refuses_what_it_would_ignore(tmp_path, capsys):
    assert program.main(["--demo", "--steps", "5", "--lr", "1e-4", "--out", str(tmp_path / "demo")]) == 2
    assert "leave out --steps, --lr" in capsys.readouterr().err.replace("--batch-size, ", "")
    assert program.main(["--demo", "--demo-minutes", "nan", "--out", str(tmp_path / "demo")]) == 2
    assert "--demo-minutes" in capsys.readouterr().err


def test_a_finished_run_has_nothing_left_to_do(train, val, tmp_path):
    assert train("--val", val) == 0
    before = (tmp_path / "out" / "last.safetensors").read_bytes()
    assert train("--val", val) == 0
    assert (tmp_path / "out" / "last.safetensors").read_bytes() == before


def test_resuming_with_other_options_names_the_difference(train, capsys):
    assert train() == 0
    assert train("--lr", "5e-4") == 2
    assert "lr: 0.001 there, 0.0005 now" in capsys.readouterr().err


def test_reversible_backpropagation_trains_the_same_model(train, tmp_path, monkeypatch, capsys):
    adam = ("--optimizer", "adam")  # SOAP's first steps divide by moments that rounding alone makes
    assert train(*adam, out="plain") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train(*adam, "--reversible", out="reversible") == 0
    assert train(*adam, out="reversible") == 2
    assert "reversible: True there, False now" in capsys.readouterr().err
    assert train(*adam, "--reversible", out="reversible") == 0
    plain, reversible = losses(tmp_path / "plain"), losses(tmp_path / "reversible")
    assert plain.keys() == reversible.keys()
    for step in plain:
        assert reversible[step] == pytest.approx(plain[step], rel=1e-4)


def test_the_model_is_built_for_reversible_backpropagation(monkeypatch):
    built = []
    monkeypatch.setattr(
        InvertibleRescaler, "enable_reversible_backprop", lambda model, on: built.append(on) or model
    )
    for options in (TrainingConfig(model="iirn_x2"), TrainingConfig(model="iirn_x2", reversible=True)):
        build_model(options)
    assert built == [False, True]


def test_a_run_begun_on_a_gpu_says_what_differs_on_a_cpu(train, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train("--precision", "bf16") == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train() == 2
    err = capsys.readouterr().err
    assert "precision: 'bf16' there, 'no' now" in err
    assert "give --precision bf16 here" in err
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train("--precision", "bf16") == 0


def test_images_kept_flat_on_the_device_train_the_same_model(train, tmp_path, monkeypatch):
    assert train(out="plain") == 0
    monkeypatch.setattr(
        invertible_rescaling.training.data, "device_for_images", lambda wish, images, device, say: device
    )
    assert train(out="flat") == 0
    plain, flat = tmp_path / "plain", tmp_path / "flat"
    assert losses(plain) == losses(flat)
    assert (plain / "last.safetensors").read_bytes() == (flat / "last.safetensors").read_bytes()


def test_patches_come_from_sub_images(train, capsys):
    assert train("--sub-images", "20", "--sub-image-step", "20") == 0
    assert "drawing from 12 sub-images of 20x20" in capsys.readouterr().out
    assert train() == 2
    assert "sub_images: 20 there, None now" in capsys.readouterr().err
    assert train("--sub-images", "64", out="large") == 2
    assert "smaller than a sub-image of 64x64" in capsys.readouterr().err


def test_a_slice_of_so_many_steps(train, tmp_path, capsys):
    for reached in (4, 6):
        assert train("--stop-after", "4") == 0
        assert read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]["step"] == reached
    assert "stopped after step 4 of 6" in capsys.readouterr().out


def test_a_new_run_on_top_of_another_is_refused(train, capsys):
    assert train() == 0
    assert train("--resume", "never") == 2
    assert "holds a run already" in capsys.readouterr().err


def break_steps(monkeypatch, broken):
    plain = TrainStep.forward
    calls = iter(range(10_000))

    def forward(self, hr, lr):
        terms, sr = plain(self, hr, lr)
        return terms * (math.nan if next(calls) in broken else 1.0), sr

    monkeypatch.setattr(TrainStep, "forward", forward)


def test_a_step_that_is_not_finite_is_skipped_and_said(train, tmp_path, monkeypatch, capsys):
    break_steps(monkeypatch, {2})
    assert train() == 0
    assert "step 2: loss nan or its gradient is not finite; step skipped" in capsys.readouterr().out
    weights = load_checkpoint(tmp_path / "out" / "last.safetensors").state_dict()
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_steps_that_stay_not_finite_end_the_run(train, monkeypatch, capsys):
    break_steps(monkeypatch, range(1, 10_000))
    assert train("--max-skipped-steps", "3") == 2
    assert "3 steps in a row without a finite gradient" in capsys.readouterr().err


def test_the_division_into_hr_and_lr_of_div2k_is_used(train, tmp_path, capsys):
    root = tmp_path / "div2k"
    hr = pictures(root / "DIV2K_train_HR", 2)
    pictures(root / "DIV2K_valid_HR", 1)
    lr = root / "DIV2K_train_LR_bicubic" / "X2"
    lr.mkdir(parents=True)
    for path in hr.iterdir():
        half = bicubic_resize(from_uint8(read_image(path)).unsqueeze(0), (20, 20))
        write_image(lr / f"{path.stem}x2.png", half[0])
    assert train("--data", root) == 0
    out = capsys.readouterr().out
    assert "their own LR images" in out
    assert "validating on 1 images" in out


def test_corrupt_images_are_named_skipped_and_counted(train, data, capsys):
    (data / "torn.png").write_bytes((data / "0000.png").read_bytes()[:60])
    assert train(steps=1) == 0
    out = capsys.readouterr().out
    assert "torn.png" in out
    assert "3 images" in out
    assert "1 skipped" in out


def test_nothing_but_corrupt_images_is_an_error(train, data, capsys):
    for path in data.iterdir():
        path.write_bytes(b"not a picture")
    assert train() == 2
    assert "none of 3 images can be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "iirn_x5"], "did you mean"),
        (["--patch", "15"], "multiple of the scale"),
        (["--patch", "64"], "smaller than a patch"),
        (["--weights", "missing.safetensors"], "missing.safetensors"),
        (["--weights", "DEFAULT"], "8 couplings a stage, and none can be left out"),
        (["--weights", "V99"], "known: V3, DEFAULT"),
        (["--model", "srgan_x4", "--weights", "DEFAULT"], "weights are shipped for"),
        (["--sub-images", "12"], "--sub-images must be at least --patch"),
        (["--latent", "wavelets"], "'wavelet'"),
        (["--blocks", "0"], "nothing to train"),
        (["--seed", str(10**20)], "--seed"),
        (["--lr", "inf"], "--lr"),
        (["--blocks", "1", "1"], "one number for each of 1 stages"),
        (["--data", "missing"], "no folder at 'missing'"),
        (["--val", "missing"], "no folder at 'missing'"),
    ],
)
def test_bad_options_give_one_line_and_exit_code_2(train, tmp_path, capsys, arguments, message):
    assert train(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


def test_training_goes_on_from_given_weights(train, tmp_path):
    assert train(out="first", steps=3) == 0
    assert (
        train("--weights", tmp_path / "first" / "last.safetensors", "--ema", "0", out="second", steps=2) == 0
    )
    first = load_checkpoint(tmp_path / "first" / "last.safetensors").state_dict()
    second = load_checkpoint(tmp_path / "second" / "last.safetensors").state_dict()
    name = "flow.layers.1.phi.features.convs.0.weight"
    assert 0 < (first[name] - second[name]).abs().max() < 0.01


def test_weights_are_told_by_name_path_or_address_and_remembered(train, tmp_path, monkeypatch):
    save = tmp_path / "V1"
    monkeypatch.chdir(tmp_path)
    assert chosen_weights(TrainingConfig(weights="DEFAULT")) == "DEFAULT"
    assert chosen_weights(TrainingConfig(weights="https://a/b.safetensors")) == "https://a/b.safetensors"
    assert chosen_weights(TrainingConfig()) is None
    assert train(out="first", steps=1) == 0
    shutil.copy(tmp_path / "first" / "last.safetensors", save)
    assert str(chosen_weights(TrainingConfig(weights="V1"))) == "V1"  # a file of that name comes first
    assert train("--weights", "V1", "--stop-after", "2", out="second") == 0
    save.unlink()
    assert train(out="second", thin=False) == 0
    for folder, given in (("first", None), ("second", "V1")):
        facts = read_metadata(tmp_path / folder / "last.safetensors")["metadata"]
        assert facts["options"].get("weights") == given


@pytest.mark.parametrize("later", [["--weights", "gone.safetensors"], ["--weights", "V9"]])
def test_a_run_begun_with_weights_goes_on_without_them(train, tmp_path, later):
    given = tmp_path / "given.safetensors"
    save_checkpoint(iirn_x2(blocks=1), given)
    assert train("--weights", given, "--stop-after", "2", steps=3) == 0
    given.unlink()
    assert train(*later, steps=3) == 0
    facts = read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]
    assert (facts["step"], facts["options"]["weights"]) == (3, str(given))


def test_what_a_run_has_begun_with_tells_its_structure():
    """Shipped weights may be of another depth than their model's name stands for."""
    options = TrainingConfig(model="iirn_x2", weights="V9")
    assert build_model(options, iirn_x2(blocks=1).config).blocks == (1,)


def test_a_run_that_begins_with_grown_weights_is_resumed(train, tmp_path):
    given = tmp_path / "given.safetensors"
    save_checkpoint(iirn_x2(blocks=1), given)
    assert train("--weights", given, "--blocks", "2", "--stop-after", "1", steps=2) == 0
    assert train("--weights", given, "--blocks", "2", steps=2) == 0
    assert load_checkpoint(tmp_path / "out" / "last.safetensors").blocks == (2,)
    assert read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]["step"] == 2


def test_images_to_validate_on_are_not_trained_on(train, data, capsys):
    pictures(data / "held", 2, seed=1)
    assert train("--val", data / "held", steps=1) == 0
    said = capsys.readouterr().out
    assert "2 images to validate on" in said
    assert "training on 3 images" in said
    assert "validating on 2 images" in said
    assert train("--val", data, out="same", steps=1) == 2
    assert "every image in" in capsys.readouterr().err


def test_only_weights_that_are_there_are_named(train, val, tmp_path, capsys):
    assert train() == 0
    assert "done: 6 steps; the last weights are in" in capsys.readouterr().out
    assert train("--val", val, out="other") == 0
    assert "done: 6 steps; the best weights, of step" in capsys.readouterr().out


def test_a_time_limit_counts_what_importing_takes() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"  # the first of what takes long, which then fails
        "try: from invertible_rescaling import CRDB\n"
        "except ImportError: print('invertible_rescaling._process' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_shipped_weights_are_trained_on_by_name():
    built = build_model(TrainingConfig(model="small_x4", weights="DEFAULT")).state_dict()
    shipped = small_x4(weights="DEFAULT").state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in shipped.items())


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_average_is_pytorchs_with_its_state(decay):
    def warm_up(averages, current, count):
        done = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averages, current, count)

    model = iirn_x2(blocks=1)
    mine, theirs = Average(model, decay), AveragedModel(model, multi_avg_fn=warm_up)
    for step in range(12):
        randomize(model, seed=step)
        mine.update(model)
        theirs.update_parameters(model)
        got, wanted = mine.state_dict(), theirs.state_dict()
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    again = Average(model, decay)
    again.load_state_dict(theirs.state_dict())
    assert again.count == 12
    assert all(map(torch.equal, again.module.parameters(), theirs.module.parameters()))


@pytest.mark.parametrize("schedule", ["cosine", "steps"])
def test_the_learning_rate_warms_up_and_decays(schedule):
    options = TrainingConfig(steps=1000, warmup=100, lr=1.0, schedule=schedule)
    rates = [learning_rate(options, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[100] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))
    assert rates[-1] == pytest.approx(0.0 if schedule == "cosine" else 0.0625, abs=1e-4)
