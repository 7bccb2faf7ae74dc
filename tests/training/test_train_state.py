import errno
import os

import pytest
import torch

from invertible_rescaling.errors import CheckpointError
from invertible_rescaling.training.state import StateError, cut_log, load_newest_state, save_state


def complain(line):
    raise AssertionError(line)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {f"t{i}": torch.randn(10, 10, generator=generator) for i in range(9)}


def test_a_state_comes_back_as_it_was(tmp_path, tensors):
    save_state(tmp_path, 7, tensors, {"best": 1.5, "names": ["a"]})
    step, back, facts = load_newest_state(tmp_path, complain)
    assert step == 7
    assert facts == {"best": 1.5, "names": ["a"]}
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_no_state_is_none(tmp_path):
    assert load_newest_state(tmp_path, complain) is None
    assert load_newest_state(tmp_path / "missing", complain) is None


def test_the_newest_two_states_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save_state(tmp_path, step, {"x": torch.tensor([float(step)])}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"step-{step:08d}.safetensors" for step in (3, 10)
    ]


def test_saving_a_step_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        save_state(tmp_path, 4, {"x": torch.tensor([value])}, {})
    assert float(load_newest_state(tmp_path, complain)[1]["x"]) == 2.0


@pytest.mark.parametrize("damage", ["truncate", "flip", "text"])
def test_a_damaged_state_is_named_and_the_one_before_it_taken(tmp_path, damage):
    for step in (1, 2):
        newest = save_state(tmp_path, step, {"x": torch.full((100,), float(step))}, {})
    content = newest.read_bytes()
    if damage == "truncate":
        newest.write_bytes(content[:-10])
    elif damage == "flip":
        newest.write_bytes(content[:-10] + bytes([content[-10] ^ 1]) + content[-9:])
    else:
        newest.write_text("{")
    said = []
    step, tensors, _ = load_newest_state(tmp_path, said.append)
    assert step == 1
    assert tensors["x"].eq(1).all()
    assert len(said) == 1
    assert said[0].startswith(f"passed over: {newest} is ")


def test_nothing_but_damaged_states_is_an_error(tmp_path):
    path = save_state(tmp_path, 1, {"x": torch.zeros(3)}, {})
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no state in"):
        load_newest_state(tmp_path, lambda line: None)


def test_what_a_killed_process_left_half_written_is_ignored_and_cleared(tmp_path):
    save_state(tmp_path, 1, {"x": torch.zeros(3)}, {})
    (tmp_path / ".step-00000002.safetensors.999-01234567.tmp").write_bytes(b"half")
    assert load_newest_state(tmp_path, complain)[0] == 1
    save_state(tmp_path, 3, {"x": torch.zeros(3)}, {})
    assert not list(tmp_path.glob(".*"))


def test_lines_of_a_log_that_tell_no_step_are_dropped(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{}\n[1]\n7\n{"step": "x"}\n{"step": 2}\n{"step": 3}\n{"st')
    cut_log(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("before", [[], [1]])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, monkeypatch, before):
    for step in before:
        save_state(tmp_path, step, {"x": torch.zeros(3)}, {})

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError) as caught:
        save_state(tmp_path, 2, {"x": torch.zeros(3)}, {})
    message = str(caught.value)
    assert repr(str(tmp_path)) in message
    assert "make room" in message
    assert ("goes on after step 1" if before else "begins anew") in message
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{step:08d}.safetensors" for step in before]
