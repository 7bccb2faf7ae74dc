"""The program that writes ONNX files and compares ONNX Runtime with PyTorch."""

from pathlib import Path

import onnx
import pytest
import torch

import export_onnx
from invertible_rescaling import iirn_x2, linear_x2, save_checkpoint
from invertible_rescaling.files import sha256_of
from invertible_rescaling.testing import randomize
from tests.pictures import pictures


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = randomize(linear_x2(blocks=1), 0.2)
    save_checkpoint(model, tmp_path / "mine.safetensors", metadata={"licence": "MIT"})
    return tmp_path / "mine.safetensors"


def _run(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = export_onnx.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_files_are_written_and_compared(capsys, weights: Path, tmp_path: Path) -> None:
    folder, out = pictures(tmp_path / "photos", 2, side=35), tmp_path / "deep" / "out"
    mine = ("--model", "linear_x2", "--weights", weights, "--out", out)
    code, said, problem = _run(capsys, *mine, "--check", folder, "--limit", 1)
    assert (code, problem) == (0, "")
    lines = said.splitlines()
    assert lines[0].startswith(f"wrote {out / 'linear_x2_downscale.onnx'} (0.")
    assert lines[1].endswith("MB, opset 18)")
    assert lines[4].startswith("| 0000 | 35x35 | 100.0000% | 0 | ")
    assert len(lines) == 5
    for direction in ("downscale", "upscale"):
        file = onnx.load(out / f"linear_x2_{direction}.onnx")
        facts = {entry.key: entry.value for entry in file.metadata_props}
        assert facts["model"] == "linear_x2"
        assert facts["weights_sha256"] == sha256_of(weights)
        assert (facts["scale"], facts["licence"], facts["direction"]) == ("2", "MIT", direction)


def test_files_that_do_not_agree_are_an_error(monkeypatch, capsys, weights: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(export_onnx, "export_onnx", lambda direction, file, **_: file.write_bytes(b""))
    monkeypatch.setattr(export_onnx, "runner", lambda file: lambda image: torch.zeros(1))
    folder = pictures(tmp_path / "photos", 1)
    mine = ("--model", "linear_x2", "--weights", weights, "--out", tmp_path)
    code, said, problem = _run(capsys, *mine, "--check", folder)
    assert code == 2
    assert problem == (
        "export_onnx.py: ONNX Runtime and PyTorch are apart on 0000: wanted 99.9% of LR the same and SR "
        "within 0.001\n"
    )
    assert "| 0000 | 40x40 | " in said


def test_shipped_weights_say_what_they_are() -> None:
    model, facts = export_onnx.load("irn_x2", "DEFAULT", "zero")
    assert not model.training
    assert facts["licence"] == "CC BY-SA 4.0"
    assert len(facts["weights_sha256"]) == 64
    assert facts["model"] == "irn_x2"


def test_nothing_is_said_of_a_licence_that_is_not_known(tmp_path: Path) -> None:
    save_checkpoint(iirn_x2(blocks=0), tmp_path / "mine.safetensors")
    assert export_onnx.load("iirn_x2", str(tmp_path / "mine.safetensors"), None)[1]["licence"] == "not stated"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--model", "iirn_x3"), "no model is named 'iirn_x3'"),
        (("--model", "srgan_x4"), "weights takes None, a member of"),
        (("--weights", "V99"), "no weights of iirn_x4 are named 'V99'"),
        (("--weights", "nowhere/file.safetensors"), "there is no file of that path"),
        (("--latent", "wavlet"), "'wavlet'"),
        (("--opset", "9"), "the opset must be 18 or more, got 9"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tmp_path: Path, arguments, problem: str) -> None:
    code, _, said = _run(capsys, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert said.startswith("export_onnx.py: ")
    assert said.count("\n") == 1
    assert problem in said
    assert not list(tmp_path.rglob("*.onnx"))


def test_unusable_pictures_are_told_before_anything_is_written(capsys, weights: Path, tmp_path: Path) -> None:
    mine = ("--model", "linear_x2", "--weights", weights, "--out", tmp_path / "out")
    code, said, problem = _run(capsys, *mine, "--check", tmp_path / "none")
    assert (code, said) == (2, "")
    assert "there is no folder at" in problem
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("package", "needed"), [("onnxruntime", "[onnx]"), ("skimage", "[train]")])
def test_missing_packages_are_named(monkeypatch, capsys, tmp_path: Path, package: str, needed: str) -> None:
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name == package else "there")
    code, said, problem = _run(capsys, "--check", "--out", tmp_path)
    assert (code, said) == (2, "")
    assert f"pip install 'invertible_rescaling{needed}'" in problem


def test_a_random_latent_is_refused(capsys, tmp_path: Path) -> None:
    model = iirn_x2(blocks=0, latent="gaussian")
    save_checkpoint(model, tmp_path / "mine.safetensors")
    mine = ("--model", "iirn_x2", "--weights", tmp_path / "mine.safetensors", "--out", tmp_path / "out")
    code, said, problem = _run(capsys, *mine)
    assert (code, said) == (2, "")
    assert problem.endswith("fed noise, which a file cannot repeat; pass --latent zero, its mean\n")
    assert not list(tmp_path.rglob("*.onnx"))


def test_misuse_ends_with_code_2(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        export_onnx.main(["--limit", "0"])
    assert ended.value.code == 2
    assert "must be at least 1, got 0" in capsys.readouterr().err
