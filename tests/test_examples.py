"""The examples that users read: each runs as it stands."""

import re

import torch

import own_subnet
import quickstart
import training_loop
from invertible_rescaling import load_checkpoint
from invertible_rescaling.images import read_image
from tests.shell import folder_of, photograph, save


def test_the_quickstart_shrinks_a_photograph_and_brings_it_back(tmp_path, capsys) -> None:
    save(tmp_path / "photo.png", photograph(45, 62))
    quickstart.main([str(tmp_path / "photo.png"), "--out", str(tmp_path)])
    assert re.fullmatch(r"restored at \d\d\.\d\d dB \(PSNR, RGB\)\n", capsys.readouterr().out)
    assert read_image(tmp_path / "small.png").shape == (3, 12, 16)
    assert read_image(tmp_path / "restored.png").shape == (3, 45, 62)


def test_a_sub_network_of_ones_own_is_stored_and_loaded(capsys, own_registries) -> None:
    own_subnet.main()
    assert capsys.readouterr().out.endswith("loaded: {'name': 'bottleneck', 'width': 16}\n")


def test_the_training_loop_leaves_a_model_better_than_it_was(tmp_path, capsys) -> None:
    folder_of(tmp_path / "in", 3, side=48)
    folder_of(tmp_path / "val", 2, side=40)
    folders = ["--data", str(tmp_path / "in"), "--val", str(tmp_path / "val")]
    rest = ["--out", str(tmp_path / "m.safetensors"), "--steps", "51", "--batch", "2", "--patch", "16"]
    training_loop.main([*folders, *rest])
    losses = [float(found) for found in re.findall(r"step \d+: loss ([\d.]+)", capsys.readouterr().out)]
    assert losses[-1] < losses[0]
    state = load_checkpoint(tmp_path / "m.safetensors").state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
