"""The linear start, and defaults that depend on model and machine."""

import json
import re
import shutil

import pytest
import torch
from accelerate.state import AcceleratorState

from invertible_rescaling import InvertibleRescaler, create_model, load_checkpoint, save_checkpoint
from invertible_rescaling.errors import ImageError
from invertible_rescaling.evaluation import model_rescale
from invertible_rescaling.images import read_image
from invertible_rescaling.testing import randomize
from invertible_rescaling.training import program
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.data import hold_out
from invertible_rescaling.training.defaults import resolve_recipe, resolve_steps
from invertible_rescaling.training.run import Run
from invertible_rescaling.training.start import linear_model, put_linear
from invertible_rescaling.training.validation import ValidationImage, load_validation, measure_images
from invertible_rescaling.weights import read_metadata
from tests.pictures import pictures

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def train(tmp_path, capsys):
    """Run the program on tiny pictures; return its exit code, what it printed and what it complained of."""
    data, val = pictures(tmp_path / "data", 4), pictures(tmp_path / "val", 2, seed=1)

    def call(*arguments, out="out", val=val):
        recipe = ["--patch", "16", "--batch-size", "2", "--start-steps", "6", "--log-every", "1"]
        fixed = ["--data", str(data), "--out", str(tmp_path / out), "--quiet", "--cpu"]
        shown = [] if val is None else ["--val", str(val)]
        code = program.main([*fixed, *shown, *recipe, *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def validations(folder):
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {entry["step"]: entry["val"] for entry in entries if "val" in entry}


# ------------------------------------------------------------------- the code in larger networks


@pytest.mark.parametrize(
    "subnet", ["crdb", "dense", {"name": "crdb", "attention": False, "growth": 8}, "conv"]
)
@pytest.mark.parametrize(("scale", "blocks"), [(2, 1), (2, 3), (4, (2, 8)), (8, 2)])
def test_a_network_with_the_code_put_in_computes_what_the_code_does(subnet, scale, blocks) -> None:
    model = InvertibleRescaler(scale, blocks=blocks, subnet=subnet)
    code = randomize(linear_model(model), 0.3)
    put_linear(code, model)
    hr = torch.rand(1, 3, 4 * scale, 6 * scale)
    for ours, theirs in zip(model(hr), code(hr), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert (
            ours - torch.cat(InvertibleRescaler(scale, blocks=0)(hr), 1)[:, : ours.shape[1]]
        ).abs().max() > 0
    assert torch.equal(model.downscale(hr), code.downscale(hr))


def test_all_that_is_put_in_is_trained_on() -> None:
    model = InvertibleRescaler(2, blocks=2)
    put_linear(randomize(linear_model(model), 0.3), model)
    lr, z = model(torch.rand(2, 3, 32, 32))
    (lr.square().sum() + z.square().sum()).backward()
    second = model.flow[1].phi.attention.mlp[2]
    assert all(bool(p.grad.any()) for p in (second.weight, second.bias, model.flow[1].phi.last.weight))


def test_a_sub_network_without_such_a_convolution_is_named() -> None:
    with pytest.raises(OptionError, match=r"RRDB has no last convolution that reads its input.*--start none"):
        linear_model(InvertibleRescaler(2, blocks=1, subnet="rrdb"))


# ----------------------------------------------------------------------------- the program's runs


def test_the_first_validation_is_the_linear_models_to_the_digit(train, tmp_path) -> None:
    code, out, _ = train("--model", "iirn_x2", "--blocks", "3", "--start-steps", "40", "--steps", "2")
    assert code == 0
    assert "linear start: 40 steps of single convolutions, 4 patches of 32x32" in out
    linear = load_checkpoint(tmp_path / "out" / "start" / "last.safetensors").eval()
    assert linear.blocks == (2,)
    assert any(bool(p.any()) for p in linear.parameters())
    images = load_validation(tmp_path / "val", 2, None, print)
    sums, _ = measure_images(images, CPU, model_rescale(linear), 2)
    first = validations(tmp_path / "out")[0]
    assert first["psnr_rgb"] == pytest.approx(sums["psnr_rgb"] / 2, abs=5e-5)
    assert first["lr_psnr_rgb"] == pytest.approx(sums["lr_psnr_rgb"] / 2, abs=5e-5)
    assert read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]["options"]["start"] == "linear"


def test_a_run_that_is_cut_within_its_start_ends_as_one_that_is_not(train, tmp_path, monkeypatch) -> None:
    arguments = ("--model", "iirn_x2", "--blocks", "1", "--steps", "3")
    assert train(*arguments, out="whole")[0] == 0
    for step, place in ((4, "linear_x2"), (2, "iirn_x2")):
        with monkeypatch.context() as patch:
            patch.setattr(
                Run,
                "_must_stop",
                lambda self, started, step=step, place=place: (
                    self.options.model == place and self.step >= step
                ),
            )
            where = "of the linear start" if place == "linear_x2" else "of 3"
            assert f"stopped after step {step} {where}" in train(*arguments, out="cut")[1]
    assert train(*arguments, out="cut")[0] == 0
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for name in ("last.safetensors", "start/last.safetensors"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_a_trained_code_is_put_in_by_path(train, tmp_path) -> None:
    code = randomize(create_model("linear_x2"), 0.05)
    save_checkpoint(code, tmp_path / "code.safetensors")
    result, out, _ = train(
        "--model", "iirn_x2", "--blocks", "2", "--steps", 1, "--start", tmp_path / "code.safetensors"
    )
    assert result == 0
    assert "starting from the linear code of" in out
    assert not (tmp_path / "out" / "start").exists()
    images = [
        ValidationImage("a", read_image(path).unsqueeze(0)) for path in sorted((tmp_path / "val").iterdir())
    ]
    sums, _ = measure_images(images, CPU, model_rescale(code.eval()), 2)
    assert validations(tmp_path / "out")[0]["psnr_rgb"] == pytest.approx(sums["psnr_rgb"] / 2, abs=5e-5)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--start", "FILE", "--model", "iirn_x4", "--patch", "32"],
            "a trained linear_x4 is needed.*--start linear",
        ),
        (["--start", "CRDB", "--model", "iirn_x2"], "a trained linear_x2 is needed.*--start linear"),
        (
            ["--start", "FILE", "--model", "iirn_x2", "--blocks", "1"],
            "it has 2 couplings a stage, and the model 1",
        ),
        (["--start", "linaer", "--model", "iirn_x2"], "--start linaer: .*'linaer'"),
        (["--start", "linear", "--model", "linear_x2"], "it is linear itself.*--start none"),
        (
            ["--start", "linear", "--model", "iirn_x2", "--subnet", "rrdb"],
            "no linear code fits.*--start none",
        ),
        (["--start", "linear", "--weights", "DEFAULT", "--model", "iirn_x2"], "leave one of them out"),
        (["--steps", "5", "--fit", "1m"], "--steps and --fit"),
        (["--val-fraction", "0.5", "--steps", "5"], "--val-fraction"),
    ],
)
def test_a_start_that_cannot_be_is_one_line(train, tmp_path, arguments, complaint) -> None:
    save_checkpoint(randomize(create_model("linear_x2"), 0.05), tmp_path / "FILE")
    save_checkpoint(randomize(create_model("iirn_x2", blocks=1), 0.05), tmp_path / "CRDB")
    given = [str(tmp_path / a) if a in ("FILE", "CRDB") else a for a in arguments]
    steps = [] if "--steps" in given else ["--steps", "3"]
    code, _, err = train(*steps, *given)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert re.search(complaint, err), err


def test_an_unknown_optimizer_is_named(train, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        train("--optimizer", "sgd")
    assert end.value.code == 2
    assert "invalid choice: 'sgd' (choose from" in capsys.readouterr().err


def test_a_run_of_one_optimizer_is_not_gone_on_with_by_another(train) -> None:
    arguments = ("--model", "iirn_x2", "--blocks", "1", "--start", "none", "--steps", "2", "--lr", "1e-3")
    assert train(*arguments)[0] == 0
    code, _, err = train(*arguments, "--optimizer", "adam")
    assert code == 2
    assert "optimizer: 'soap' there, 'adam' now" in err


# ------------------------------------------------------------------------- how long, and on what


def test_a_run_says_after_a_few_steps_how_long_it_takes(train) -> None:
    code, out, _ = train("--model", "linear_x2", "--steps", "14")
    assert code == 0
    assert "s a step: about" in out
    assert "for the 2 steps to go of 14" in out


def test_as_many_steps_as_fit_are_made_and_kept_to(train, tmp_path, monkeypatch) -> None:
    """By a clock on which a step takes a second."""
    monkeypatch.setattr(Run, "_now", lambda self: float(self.step))
    arguments = ("--model", "linear_x2", "--fit", "60s")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_must_stop", lambda self, started: self.step >= 20)
        assert "stopped after step 20 of" in train(*arguments)[1]
    steps = read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]["options"]["steps"]
    assert 20 < steps <= 72
    code, out, _ = train(*arguments)
    assert code == 0
    assert f"going on after step 20 of {steps}" in out
    assert f"done: {steps} steps" in out


def test_how_many_steps_fit_is_counted_again_once_the_first_ones_are_past(train, monkeypatch) -> None:
    """By a clock on which the first steps take three seconds each, and the others one."""
    monkeypatch.setattr(Run, "_now", lambda self: float(self.step + 2 * min(self.step, 12)))
    monkeypatch.setattr("invertible_rescaling.training.run._AGAIN", 3)
    _, out, _ = train("--model", "linear_x2", "--fit", "90s")
    first, second = (int(steps) for steps in re.findall(r"steps to go of (\d+)", out))
    assert first < 45
    assert second > 1.5 * first
    assert f"done: {second} steps" in out


def test_a_run_stopped_before_it_knows_how_many_steps_fit_goes_on(train, monkeypatch) -> None:
    arguments = ("--model", "linear_x2", "--fit", "2s")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_must_stop", lambda self, started: self.step >= 5)
        assert "stopped after step 5 of as many as fit" in train(*arguments)[1]
    code, out, _ = train(*arguments)
    assert (code, "going on after step 5 of as many as fit" in out) == (0, True)


def test_done_says_of_which_step_the_best_weights_are(train) -> None:
    _, out, _ = train("--model", "linear_x2", "--steps", "3", "--validate-every", "2", "--lr", "1e-9")
    said = re.search(r"done: 3 steps; the best weights, of step (\d+), and the last are in", out)
    figures = {int(m[1]): float(m[2]) for m in re.finditer(r"step (\d+): val PSNR ([\d.]+)", out)}
    assert said
    assert figures[int(said[1])] == max(figures.values())


def test_a_share_of_the_images_is_validated_on_and_not_trained_on(train) -> None:
    code, out, _ = train("--model", "linear_x2", "--steps", "2", "--val-fraction", "0.25", val=None)
    assert code == 0
    assert "validating on 1 of these images, which are not trained on" in out
    assert "step 2: val PSNR" in out


def test_a_share_of_too_few_images_is_refused() -> None:
    with pytest.raises(ImageError, match=r"--val-fraction 0.9 of 1 images leaves none"):
        hold_out([None], 0.9)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("iirn_x4", CPU, {"optimizer": "soap", "lr": 3e-3, "batch_size": 4, "patch": 48, "start": "linear"}),
        ("iirn_x4", CPU, {"fit": 3600.0, "steps": None}),
        ("iirn_x8", CPU, {"patch": 96}),
        ("linear_x4", CPU, {"patch": 64, "start": "none"}),
        ("iirn_x4", CUDA, {"batch_size": 16, "patch": 144, "steps": 50_000, "ema": 0.999, "warmup": 500}),
        ("edsr_x4", CPU, {"optimizer": "adam", "lr": 8e-4, "start": "none", "patch": 64}),
    ],
)
def test_what_is_left_to_the_program_depends_on_model_and_device(name, device, expected) -> None:
    model = create_model(name)
    settled = resolve_recipe(TrainingConfig(model=name), model, model.scale, device)
    assert {key: getattr(settled, key) for key in expected} == expected


@pytest.mark.parametrize("optimizer", ["auto", "adam-dct", "adam"])
def test_trained_weights_go_on_at_a_lower_rate(optimizer) -> None:
    given = TrainingConfig(optimizer=optimizer, weights="DEFAULT")
    settled = resolve_recipe(given, create_model("iirn_x2"), 2, CPU)
    assert (settled.lr, settled.start) == (3e-4, "none")


def test_what_is_given_is_kept() -> None:
    given = TrainingConfig(
        lr=1e-4, batch_size=2, patch=32, optimizer="adam", start="none", steps=10, warmup=0, ema=0.0
    )
    assert resolve_recipe(given, create_model("iirn_x2"), 2, CPU) == given


def test_short_runs_average_over_few_steps() -> None:
    assert [resolve_steps(TrainingConfig(), steps).ema for steps in (100, 1000, 2000, 50_000)] == [
        0.9,
        0.98,
        0.99,
        0.999,
    ]


def test_a_start_of_another_run_is_not_gone_on_with(train, tmp_path) -> None:
    arguments = ("--model", "iirn_x2", "--blocks", "1", "--steps", "1")
    assert train(*arguments)[0] == 0
    shutil.rmtree(tmp_path / "out" / "state")
    for name in ("best", "last"):
        (tmp_path / "out" / f"{name}.safetensors").unlink()
    code, _, err = train(*arguments, "--seed", "1")
    assert code == 2
    assert "seed: 0 there, 1 now" in err
