import argparse
from pathlib import Path

import pytest

from invertible_rescaling import create_model
from invertible_rescaling.training.arguments import parse_options
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.demo import demo_options
from invertible_rescaling.training.flags import duration


@pytest.mark.parametrize(("text", "seconds"), [("600", 600), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_durations_take_units(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "ten", "5d", "1:30"])
def test_durations_refuse_what_is_no_time(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        duration(text)


def test_one_number_of_blocks_stands_for_all_stages():
    assert parse_options(["--demo", "--blocks", "2"]).overrides == {"blocks": 2}
    assert parse_options(["--demo", "--blocks", "2", "3"]).overrides == {"blocks": (2, 3)}


def test_parts_of_a_model_take_options():
    options = ["--demo", "--latent", "wavelet:correction=none", "--subnet", "crdb:growth=16,reduction=4"]
    assert parse_options(options).overrides == {
        "latent": {"name": "wavelet", "correction": "none"},
        "subnet": {"name": "crdb", "growth": 16, "reduction": 4},
    }
    model = create_model("iirn_x2", blocks=1, **parse_options(options).overrides)
    assert model.latent.options["correction"] == "none"


@pytest.mark.parametrize("text", ["wavelet:", ":a=1", "wavelet:correction", "crdb:a=1,a=2", "crdb:name=b"])
def test_parts_that_cannot_be_read_are_refused(text, tmp_path):
    with pytest.raises(OptionError, match="options follow a name"):
        TrainingConfig(data=tmp_path, latent=text).check()


def test_python_may_write_what_the_command_line_does() -> None:
    config = TrainingConfig(data="photographs", blocks=2, fit="20m", time_limit="1.5h", out="runs/mine")
    assert (config.data, config.out) == (Path("photographs"), Path("runs/mine"))
    assert (config.blocks, config.fit, config.time_limit) == ((2,), 1200, 5400)
    with pytest.raises(OptionError, match="fit: 'soon' is no time"):
        TrainingConfig(fit="soon")
    assert TrainingConfig(blocks=[1, 2]).overrides == {"blocks": (1, 2)}


def test_parsing_nothing_gives_the_defaults():
    assert parse_options([]) == TrainingConfig()


def test_the_run_is_fixed_by_the_recipe_and_not_by_where_it_is_written():
    here, there = parse_options(["--out", "a", "--time-limit", "5m"]), parse_options(["--out", "b"])
    assert here.fixed == there.fixed
    assert here.fixed != parse_options(["--lr", "1e-3"]).fixed


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"data": Path("no/such/folder")}, "no folder at 'no/such/folder'"),
        ({"val": Path("no/such/folder")}, "--val"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"batch_size": -1}, "--batch-size must be at least 1, got -1"),
        ({"lr": 0.0}, "--lr"),
        ({"clip": float("nan")}, "--clip"),
        ({"ema": 1.0}, "--ema"),
        ({"beta2": 1.0}, "--beta2"),
        ({"beta2": float("nan")}, "--beta2"),
        ({"gan": "srgan", "patch": 31}, "--gan"),
        ({"loss_weights": (-1.0, 1.0, 1.0)}, "--loss-weights .*got -1 1 1"),
        ({"loss_weights": (1.0, float("nan"), 1.0)}, "--loss-weights"),
        ({"loss_weights": (1.0, 1.0, float("inf"))}, "--loss-weights"),
        ({"loss_weights": (0.0, 0.0, 0.0)}, "--loss-weights .*not all 0"),
        ({"chroma": -1.0}, "--chroma"),
        ({"val_limit": 0}, "--val-limit"),
        ({"stop_after": 0}, "--stop-after"),
        ({"sub_images": 100, "patch": 144}, "--sub-images must be at least --patch"),
        ({"sub_image_step": 0}, "--sub-image-step"),
    ],
)
def test_options_that_cannot_work_are_named(tmp_path, change, rule):
    with pytest.raises(OptionError, match=rule):
        TrainingConfig(**({"data": tmp_path} | change)).check()


def test_options_that_do_nothing_are_no_part_of_the_run():
    plain = TrainingConfig(precision="no", compile="off", optimizer="soap", start="none").fixed
    assert plain["beta2"] is plain["start_steps"] is plain["sub_images"] is plain["sub_image_step"] is None
    chosen = TrainingConfig(optimizer="adam", start="linear", sub_images=480).fixed
    assert (chosen["beta2"], chosen["start_steps"], chosen["sub_image_step"]) == (0.999, 2000, 240)
    assert "images_on" not in chosen


def test_the_demo_keeps_its_recipe_on_every_machine():
    demo = demo_options(TrainingConfig(demo=True))
    assert (demo.batch_size, demo.patch, demo.precision, demo.compile) == (4, 48, "no", "off")


def test_reversible_backpropagation_is_part_of_the_recipe():
    assert parse_options(["--demo"]).fixed["reversible"] is False
    assert parse_options(["--demo", "--reversible"]).fixed["reversible"] is True
