"""The fastest engine: measured once, remembered, and asked for at the shell."""

import json

import pytest
import torch
from torch import nn

from invertible_rescaling import InvertibleRescaler, linear_x2, linear_x4
from invertible_rescaling.engines import choice, fastest_engine, list_engines
from invertible_rescaling.images import read_image
from tests.pictures import pictures
from tests.shell import run


@pytest.fixture
def measured(monkeypatch) -> list[tuple[list[str], int]]:
    """Let the second engine be the fastest, and list what was measured."""
    calls: list[tuple[list[str], int]] = []

    def measure(model, names, side, device) -> str:
        calls.append((names, side))
        return names[1]

    monkeypatch.setattr(choice, "_measure", measure)
    return calls


def test_what_was_measured_is_remembered(measured, tmp_path) -> None:
    model, cache = linear_x4(weights="DEFAULT"), tmp_path / "deep" / "engines.json"
    assert fastest_engine(model, (400, 600), cache=cache) == "onnxruntime"
    assert measured == [(["torch", "onnxruntime", "openvino"], 256)]
    for size in ((200, 300), (4000, 6000)):
        fastest_engine(model, size, cache=cache)
    assert len(measured) == 1
    assert list(json.loads(cache.read_text()).values()) == ["onnxruntime"]


def test_what_would_change_it_is_measured_again(measured, tmp_path) -> None:
    model, cache, before = linear_x4(weights="DEFAULT"), tmp_path / "engines.json", torch.get_num_threads()
    fastest_engine(model, (400, 600), cache=cache)
    fastest_engine(model, (100, 160), cache=cache)
    assert measured[-1][1] == 64
    fastest_engine(linear_x2(weights="DEFAULT"), (400, 600), cache=cache)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    fastest_engine(model, (400, 600), cache=cache)
    torch.set_num_threads(before + 1)
    try:
        fastest_engine(model, (400, 600), cache=cache)
    finally:
        torch.set_num_threads(before)
    assert len(measured) == 5


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": 1}'])
def test_a_damaged_cache_costs_a_measurement(measured, tmp_path, content) -> None:
    cache = tmp_path / "engines.json"
    cache.write_text(content)
    for _ in range(2):
        assert fastest_engine(linear_x2(), (64, 64), cache=cache) == "onnxruntime"
    assert len(measured) == 1


def test_where_nothing_can_be_written_it_is_measured_each_time(measured, tmp_path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        assert fastest_engine(linear_x2(), (64, 64), cache=tmp_path / "file" / "e.json") == "onnxruntime"
    assert len(measured) == 2


def test_an_engine_that_is_not_there_any_more_is_forgotten(measured, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "engines.json"
    fastest_engine(linear_x2(), (64, 64), cache=cache)
    cache.write_text(cache.read_text().replace('": "onnxruntime"', '": "gone"'))
    assert fastest_engine(linear_x2(), (64, 64), cache=cache) in list_engines()
    assert len(measured) == 2


def test_the_least_median_wins(monkeypatch, tmp_path) -> None:
    """By a clock that each engine moves as far as it is slow."""
    now = [0.0]
    slow = {"torch": 3.0, "onnxruntime": 2.0, "openvino": 1.0}
    model, seen = linear_x2(weights="DEFAULT").eval(), []

    def create(name, model):
        def run(state, *, inverse):
            now[0] += slow[name] * (100 if len(seen) < 6 else 1)  # what is compiled does not count
            seen.append(name)
            return model.flow.inverse(state) if inverse else model.flow(state)

        return run

    monkeypatch.setattr(choice, "create_engine", create)
    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    assert fastest_engine(model, (64, 64), cache=tmp_path / "e.json") == "openvino"
    slow["torch"] = 0.5
    assert fastest_engine(model, (999, 64), cache=tmp_path / "e.json") == "torch"


def test_a_model_that_only_pytorch_runs_goes_by_pytorch(tmp_path) -> None:
    class Mine(nn.Conv2d):
        def __init__(self, ins: int, outs: int) -> None:
            super().__init__(ins, outs, 1)

    model = InvertibleRescaler(2, blocks=1, subnet=Mine).eval()
    assert fastest_engine(model, (64, 64), cache=tmp_path / "e.json") == "torch"


def test_the_shell_takes_an_engine(tmp_path, measured, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = pictures(tmp_path / "photos", 2, side=45)
    for engine in ("torch", "onnxruntime", "openvino", "auto"):
        model = ("--model", "linear_x4", "--jobs", "1", "--engine", engine)
        assert run(capsys, "downscale", folder, tmp_path / engine / "lr", *model).code == 0
        back = ("--jobs", "1", "--engine", engine)
        lr, sr = tmp_path / engine / "lr", tmp_path / engine / "sr"
        assert run(capsys, "upscale", lr, sr, *back).code == 0
        for kind in ("lr", "sr"):
            for file in sorted((tmp_path / "torch" / kind).iterdir()):
                one, other = (read_image(path).int() for path in (file, tmp_path / engine / kind / file.name))
                assert int((one - other).abs().max()) <= 1
                assert float((one != other).float().mean()) < 1e-3
    assert (tmp_path / "cache" / "invertible_rescaling" / "engines.json").exists()
    assert len(measured) == 1


def test_the_shell_refuses_an_engine_in_a_line(tmp_path, monkeypatch, capsys) -> None:
    folder = pictures(tmp_path / "photos", 1)
    made = run(capsys, "downscale", folder, tmp_path / "lr", "--engine", "tensorrt")
    assert made.code == 2
    known = "auto, torch, cudagraphs, onnxruntime, openvino"
    assert made.errors == [f"error: there is no engine 'tensorrt'; there are {known}"]
    monkeypatch.setattr("invertible_rescaling.engines.graphs.find_spec", lambda name: None)
    wanted = ("--model", "linear_x2", "--engine", "openvino")
    made = run(capsys, "downscale", folder, tmp_path / "lr", *wanted)
    assert made.code == 2
    assert "pip install 'invertible_rescaling[openvino]'" in made.errors[0]
    assert not (tmp_path / "lr").exists()
