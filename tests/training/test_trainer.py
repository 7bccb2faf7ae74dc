"""Trainer as a user calls it: images in memory, a model of one's own, and going on."""

import json

import pytest
import torch

from invertible_rescaling import InvertibleRescaler, linear_x2, load_checkpoint, small_x2
from invertible_rescaling.errors import DtypeError, ShapeError
from invertible_rescaling.evaluation import measure, model_rescale
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training import ImagePair, OptionError, Trainer, TrainingConfig
from invertible_rescaling.weights import read_metadata
from tests.pictures import pictures


def image(side: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def config(tmp_path, **options) -> TrainingConfig:
    usual = {"model": "linear_x2", "steps": 4, "patch": 16, "batch_size": 2, "cpu": True, "quiet": True}
    return TrainingConfig(out=str(tmp_path / "out"), **(usual | options))


def test_images_in_memory_train_a_model_and_another_call_goes_on(tmp_path) -> None:
    lines: list[str] = []
    given = config(tmp_path, stop_after=3)
    first = Trainer(given, [image(), ImagePair(image(seed=1))], [image(30, 2)], log=lines.append).fit()
    assert (first.finished, first.step, first.best_step) == (False, 3, 0)
    second = Trainer(given, [image(), image(seed=1)], [image(30, 2)], log=lines.append).fit()
    assert (second.finished, second.step, second.out) == (True, 4, tmp_path / "out")
    assert second.metrics["step"] == 4
    assert second.metrics["psnr_rgb"] > 0
    stored = load_checkpoint(tmp_path / "out" / "last.safetensors")
    assert isinstance(second.model, InvertibleRescaler)
    assert not second.model.training
    assert all(map(torch.equal, stored.state_dict().values(), second.model.state_dict().values()))
    assert any("going on after step 3 of 4" in line for line in lines)


def test_a_model_of_ones_own_is_copied_and_trained(tmp_path) -> None:
    mine = linear_x2(weights="DEFAULT")
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    result = Trainer(config(tmp_path), [image()], model=mine, log=lambda line: None).fit()
    assert result.model is not None
    assert all(map(torch.equal, before.values(), mine.state_dict().values()))
    moved = [
        torch.equal(a, b) for a, b in zip(before.values(), result.model.state_dict().values(), strict=True)
    ]
    assert not all(moved)
    assert result.metrics == {}
    assert result.best_step is None
    assert load_checkpoint(tmp_path / "out" / "last.safetensors").config == mine.config


def test_a_trained_model_of_ones_own_keeps_what_it_has_learnt(tmp_path) -> None:
    mine, val = small_x2(weights="DEFAULT").eval(), image(48, 1)
    Trainer(config(tmp_path, steps=1), [image(48)], [val], model=mine, log=lambda line: None).fit()
    entries = map(json.loads, (tmp_path / "out" / "log.jsonl").read_text().splitlines())
    first = next(entry["val"]["psnr_rgb"] for entry in entries if "val" in entry)
    expected = measure(model_rescale(mine), from_uint8(val).unsqueeze(0), 2).figures["psnr_rgb"]
    assert first == pytest.approx(expected, abs=1e-6)
    options = read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]["options"]
    assert (options["start"], options["lr"], options["weights"]) == ("none", 3e-4, "of the caller")


def test_an_untrained_model_of_ones_own_begins_with_the_linear_code(tmp_path) -> None:
    lines: list[str] = []
    given = config(tmp_path, steps=1, start_steps=2)
    Trainer(given, [image(48)], model=small_x2(), log=lines.append).fit()
    assert lines[0].startswith("linear start: 2 steps")
    with pytest.raises(OptionError, match="a model and weights='DEFAULT'"):
        Trainer(config(tmp_path, weights="DEFAULT"), [image(48)], model=small_x2())


def test_folders_are_read_where_no_images_are_given(tmp_path, capsys) -> None:
    given = config(tmp_path, data=str(pictures(tmp_path / "data", 3)), val=str(pictures(tmp_path / "val", 1)))
    assert Trainer(given).fit().metrics["step"] == 4
    assert "training on 3 images" in capsys.readouterr().out


def test_a_share_of_the_images_is_kept_to_validate_on(tmp_path) -> None:
    images = [image(seed=seed) for seed in range(4)]
    result = Trainer(config(tmp_path, val_fraction=0.25), images, log=lambda line: None).fit()
    assert result.metrics["step"] == 4


def test_a_call_that_ends_within_the_linear_start_has_no_model_yet(tmp_path) -> None:
    given = config(tmp_path, model="small_x2", start="linear", start_steps=3, time_limit=1e-9)
    result = Trainer(given, [image(40)], log=lambda line: None).fit()
    assert (result.model, result.finished, result.step) == (None, False, 0)


@pytest.mark.parametrize(
    ("images", "error", "said"),
    [
        ([torch.rand(3, 24, 24)], DtypeError, "uint8, got torch.float32"),
        ([image()[:1]], ShapeError, r"\(3, H, W\), got \(1, 24, 24\)"),
        (None, OptionError, "give --data DIR"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_at_once(tmp_path, images, error, said: str) -> None:
    with pytest.raises(error, match=said):
        Trainer(config(tmp_path), images)
    assert not (tmp_path / "out").exists()
