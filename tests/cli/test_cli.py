"""The commands: pictures of every kind down and up, and what is told of them."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invertible_rescaling import (
    __version__,
    esrgan_x4,
    iirn_x2,
    irn_x4,
    linear_x2,
    linear_x4,
    list_models,
    load_checkpoint,
    register_model,
    save_checkpoint,
)
from invertible_rescaling.cli import main
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.files import sha256_of
from invertible_rescaling.images import (
    MAX_PIXELS,
    Picture,
    from_uint8,
    read_image,
    read_picture,
    write_picture,
)
from invertible_rescaling.pipeline import PictureRescaler
from invertible_rescaling.pipeline.networks import ModelChoice, load
from invertible_rescaling.pipeline.record import KEY, Record, record_of
from invertible_rescaling.pipeline.run import share
from invertible_rescaling.testing import randomize
from invertible_rescaling.weights import IIRN_X4_Weights, enums
from tests.images.test_pictures import CORRUPT, PROFILE, VALID, _equal, _exif
from tests.shell import contents, folder_of, photograph, run, save, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def tiny(weights):
    """RescaleOptions that ask for the small model, and one picture at a time."""
    return ("--weights", weights, "--jobs", 1)


# Help


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["upscale", "--help"],
        [],
        ["nothing"],
        ["downscale", "--jobs", "x", "a", "b"],
    ],
    ids=" ".join,
)
def test_help_the_version_and_misuses_are_told_at_once(arguments) -> None:
    """Nothing that takes seconds is imported."""
    code = "import sys; from invertible_rescaling.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert "typer" in imported
    assert not imported & {"numpy", "torch", "PIL"}


def test_help_says_from_which_size_pictures_are_refused(capsys) -> None:
    side = math.isqrt(MAX_PIXELS)
    assert side**2 == MAX_PIXELS
    for command in ("downscale", "upscale", "roundtrip"):
        assert f"{side} x {side}" in " ".join(run(capsys, command, "--help").out.split())


# Down and up


def test_a_picture_goes_down_and_up_as_by_the_api(tmp_path, capsys) -> None:
    source = save(tmp_path / "photo.png", photograph(37, 50))
    small, restored = tmp_path / "small.png", tmp_path / "restored.png"
    found = run(capsys, "downscale", source, small)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("1 done in ")
    assert run(capsys, "upscale", small, restored).code == 0
    model = load(ModelChoice()).model
    lr = model.downscale(from_uint8(read_image(source)).unsqueeze(0))
    assert torch.equal(from_uint8(read_image(small)), lr[0])
    sr = model.upscale(lr, size=(37, 50))
    assert torch.equal(from_uint8(read_image(restored)), (sr[0] * 255).round() / 255)


def test_lr_says_what_it_is(tmp_path, capsys) -> None:
    source = save(tmp_path / "photo.png", photograph(37, 50))
    run(capsys, "downscale", source, tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as image:
        facts = json.loads(image.text["invertible_rescaling"])
    assert facts["model"] == "iirn_x4"
    assert facts["original_size"] == [37, 50]
    assert facts["size"] == [10, 13]
    assert facts["weights_sha256"] == IIRN_X4_Weights.DEFAULT.sha256
    assert facts["version"] == __version__


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_every_kind_of_picture_stays_what_it_is(tmp_path, capsys, tiny, kind, channels, deep) -> None:
    if kind == "webp" and deep:
        return
    pixels = torch.from_numpy(
        np.atleast_3d(photograph(19, 22, channels, deep=deep)).transpose(2, 0, 1).copy()
    )
    alpha = pixels[-1:].clone() if channels in (2, 4) else None
    exif = _exif().tobytes().removeprefix(b"Exif\0\0")
    picture = Picture(pixels[: 1 if channels < 3 else 3].clone(), alpha, icc=PROFILE, exif=exif)
    write_picture(tmp_path / "in.tif", picture)
    assert run(capsys, "downscale", tmp_path / "in.tif", tmp_path / "lr", "--format", kind, *tiny).code == 0
    assert run(capsys, "upscale", tmp_path / "lr", tmp_path / "sr", *tiny).code == 0
    small = next((tmp_path / "lr").iterdir())
    lr, sr = read_picture(small), read_picture(tmp_path / "sr" / "in.png")
    assert sr.kind == picture.kind
    assert kind == "webp" or lr.kind == picture.kind
    assert (lr.size, sr.size) == ((5, 6), (19, 22))
    assert lr.icc == sr.icc == PROFILE
    kept = Image.Exif()
    kept.load(sr.exif)
    assert kept[0x010F] == "a camera"
    if deep and channels == 3:  # and not 8 bits in the guise of 16
        assert len(np.unique(lr.colour.numpy() % 257)) > 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (3, 2), (4, 4), (5, 17)])
def test_any_size_comes_back(tmp_path, capsys, tiny, height: int, width: int) -> None:
    save(tmp_path / "in" / "a.png", photograph(height, width))
    assert run(capsys, "downscale", tmp_path / "in", tmp_path / "lr", *tiny).code == 0
    assert run(capsys, "upscale", tmp_path / "lr", tmp_path / "sr", *tiny).code == 0
    assert read_picture(tmp_path / "sr" / "a.png").size == (height, width)


def test_16_bits_carry_more_than_8(weights) -> None:
    network = load(ModelChoice(None, str(weights)))
    deep = torch.from_numpy(photograph(64, 64, deep=True).transpose(2, 0, 1).copy())
    wanted = network.model.downscale(deep.float().unsqueeze(0) / 65535, bits=16)[0]
    assert _equal(
        PictureRescaler(network.model).downscale(Picture(deep)).colour,
        (wanted * 65535).round().to(torch.int32).to(torch.uint16),
    )


def test_opaque_and_clear_stay_so(weights) -> None:
    rescaler = PictureRescaler(load(ModelChoice(None, str(weights))).model)
    for level in (0, 255):
        picture = Picture(
            torch.full((3, 13, 9), 99, dtype=torch.uint8), torch.full((1, 13, 9), level, dtype=torch.uint8)
        )
        lr = rescaler.downscale(picture)
        assert lr.alpha.unique().tolist() == [level]
        assert rescaler.upscale(lr, (13, 9)).alpha.unique().tolist() == [level]


def test_tiles_give_what_the_whole_gives(tmp_path, capsys, tiny) -> None:
    source = save(tmp_path / "a.png", photograph(90, 70))
    for name, tile in (("whole", "none"), ("tiles", 32), ("auto", "auto")):
        assert run(capsys, "downscale", source, tmp_path / f"{name}.png", "--tile", tile, *tiny).code == 0
        assert (
            run(
                capsys,
                "upscale",
                tmp_path / f"{name}.png",
                tmp_path / f"{name}_up.png",
                "--tile",
                tile,
                *tiny,
            ).code
            == 0
        )
    whole, tiles = (read_picture(tmp_path / f"{name}_up.png").colour.int() for name in ("whole", "tiles"))
    assert int((whole - tiles).abs().max()) <= 1
    assert (tmp_path / "auto.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


@pytest.mark.parametrize(
    ("side", "tiles"),
    [(2048, {}), (2049, {"tile": 1024}), (8192, {"tile": 1024}), (8193, {"tile": 1024, "overlap": 64})],
)
def test_large_pictures_go_in_tiles(weights, side: int, tiles: dict) -> None:
    assert load(ModelChoice(None, str(weights))).in_tiles(None, (side, side))._tiles((side, side)) == tiles


def test_a_tree_keeps_its_structure(tmp_path, capsys, tiny) -> None:
    for name in ("a.png", "sub/b.jpg", "sub/deep/c.webp", ".hidden/d.png", "notes.txt"):
        if name.endswith(".txt"):
            (tmp_path / "in" / name).write_text("no picture")
        else:
            save(tmp_path / "in" / name, photograph(8, 9))
    found = run(capsys, "downscale", tmp_path / "in", tmp_path / "in" / "lr", *tiny)
    assert (found.code, found.err) == (0, "")
    assert "3 done in" in found.out
    assert found.out.strip().endswith("1 other files left out")
    assert set(contents(tmp_path / "in" / "lr")) == {"a.png", "sub/b.png", "sub/deep/c.png"}
    again = run(capsys, "downscale", tmp_path / "in", tmp_path / "in" / "lr", "--resume", *tiny)
    assert again.out.startswith("0 done, 3 skipped in")


def test_files_and_folders_go_together(tmp_path, capsys, tiny) -> None:
    first, second = (
        save(tmp_path / "x.png", photograph(8, 9)),
        save(tmp_path / "in" / "y.png", photograph(8, 9)),
    )
    assert run(capsys, "downscale", first, second.parent, first, tmp_path / "lr", *tiny).code == 0
    assert set(contents(tmp_path / "lr")) == {"x.png", "y.png"}


def test_workers_make_what_one_process_makes(tmp_path, capsys, weights) -> None:
    for index in range(5):
        save(tmp_path / "in" / f"{index}.png", photograph(20 + index, 30, seed=index))
    (tmp_path / "in" / "bad.png").write_bytes(b"bad")
    for jobs in (1, 2):
        found = run(
            capsys, "downscale", tmp_path / "in", tmp_path / str(jobs), "--jobs", jobs, "--weights", weights
        )
        assert found.code == 1
        assert found.out.startswith("5 done, 1 failed in")
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_jobs_share_the_cores() -> None:
    assert share(1, 100, "cpu")[0] == 1
    assert share(8, 3, "cpu") == (3, 1)
    assert share(None, 0, "cpu")[0] == 1


# The suite of PNG files


def test_the_png_suite_goes_down_and_up(shared_fixtures, tmp_path, capsys, tiny) -> None:
    suite = shared_fixtures / "pngsuite"
    found = run(capsys, "downscale", suite, tmp_path / "lr", *tiny)
    assert found.code == 1
    assert f"{len(VALID)} done, {len(CORRUPT)} failed" in found.out
    assert sorted(line.split(": ")[1].split("/")[-1] for line in found.errors) == CORRUPT
    assert len(found.errors) == len(CORRUPT)
    assert sorted(contents(tmp_path / "lr")) == VALID
    assert run(capsys, "upscale", tmp_path / "lr", tmp_path / "sr", *tiny).code == 0
    for name in VALID:
        before, after = read_picture(suite / name), read_picture(tmp_path / "sr" / name)
        assert (after.kind, after.size) == (before.kind, before.size)
        lr = read_picture(tmp_path / "lr" / name)
        assert lr.size == tuple(-(-side // 4) for side in before.size)
        # Down is near the mean over blocks with any weights, so that a wrong picture would show.
        assert _mean(lr) == pytest.approx(_mean(before), abs=0.1)


def _mean(picture: Picture) -> float:
    return float(picture.colour.double().mean()) / (255 if picture.bits == 8 else 65535)


# What upscale goes by


def _lr(tmp_path, capsys, *options):
    save(tmp_path / "photo.png", photograph(37, 50))
    assert run(capsys, "downscale", tmp_path / "photo.png", tmp_path / "lr.png", *options).code == 0
    return tmp_path / "lr.png"


def _refused(capsys, *arguments) -> str:
    found = run(capsys, "upscale", *arguments)
    assert found.code == 1
    assert len(found.errors) == 1
    return found.errors[0]


def test_an_edited_lr_is_noticed(tmp_path, capsys) -> None:
    lr, out = _lr(tmp_path, capsys), tmp_path / "out.png"
    picture = read_picture(lr)
    edited = picture.colour.clone()
    edited[0, 3, 3] ^= 1
    write_picture(tmp_path / "edited.png", Picture(edited, text=picture.text))
    write_picture(tmp_path / "resized.png", Picture(picture.colour[:, :9].clone(), text=picture.text))
    write_picture(tmp_path / "bare.png", Picture(picture.colour))
    write_picture(tmp_path / "broken.png", Picture(picture.colour, text={KEY: "{}"}))
    messages = {
        "edited": "its pixels are not those that were written",
        "resized": "it is 13x9 now, and was 13x10",
        "bare": "it carries no metadata of downscale",
        "broken": "its metadata has format None",
    }
    for name, message in messages.items():
        source = tmp_path / f"{name}.png"
        refusal = _refused(capsys, source, out)
        assert message in refusal
        assert "pass --model" in refusal
        assert not out.exists()
        found = run(capsys, "upscale", source, out, "--model", "iirn_x4", "--force")
        assert found.code == 0
        assert message in found.err
        assert read_picture(out).size == ((36, 52) if name == "resized" else (40, 52))
        out.unlink()
    found = run(capsys, "upscale", tmp_path / "bare.png", out, "--model", "iirn_x4", "--size", "50x37")
    assert read_picture(out).size == (37, 50)
    run(capsys, "upscale", lr, tmp_path / "direct.png")
    assert _equal(read_picture(out).colour, read_picture(tmp_path / "direct.png").colour)


def test_other_weights_are_noticed(tmp_path, capsys, weights) -> None:
    lr, out = _lr(tmp_path, capsys, "--weights", weights), tmp_path / "out.png"
    refusal = _refused(capsys, lr, out)
    assert "that are not shipped; pass their file as --weights" in refusal
    other = tiny_weights(tmp_path / "other.safetensors", seed=1)
    assert "it was made with other weights" in _refused(capsys, lr, out, "--weights", other)
    assert run(capsys, "upscale", lr, out, "--weights", weights).err == ""
    found = run(capsys, "upscale", lr, out, "--model", "iirn_x4", "--weights", other, "--force")
    assert found.code == 0
    assert "note: it was made with other weights, of unnamed_x4" in found.err


def test_older_weights_are_found(tmp_path, capsys, monkeypatch) -> None:
    """LR says which member made it, and another may have become the default since."""
    facts = json.loads((enums.PRETRAINED / "linear_x4_v1.json").read_text())
    monkeypatch.setattr(enums, "PRETRAINED", tmp_path)
    for version, seed in ((1, 0), (2, 1)):
        file = tmp_path / f"linear_x4_v{version}.safetensors"
        save_checkpoint(randomize(linear_x4(), 0.1, seed=seed), file)
        known = facts | {"file": file.name, "sha256": sha256_of(file)}
        file.with_suffix(".json").write_text(json.dumps(known))
    older = enums.read_members("linear_x4", tmp_path)
    monkeypatch.setitem(enums._ENUMS, "linear_x4", older)
    lr = _lr(tmp_path, capsys, "--model", "linear_x4", "--weights", "V1")
    assert run(capsys, "upscale", lr, tmp_path / "out.png").err == ""
    record = record_of(read_picture(tmp_path / "out.png"))
    assert record.weights_sha256 == older.V1.sha256 != older.DEFAULT.sha256
    assert record.kind == "restored"
    assert "made by upscale, and is no LR picture" in _refused(
        capsys, tmp_path / "out.png", tmp_path / "b.png"
    )


def test_another_scale_is_written_down(tmp_path, capsys) -> None:
    checkpoint = tmp_path / "x2.safetensors"
    save_checkpoint(iirn_x2(blocks=1), checkpoint)
    lr = _lr(tmp_path, capsys, "--weights", checkpoint)
    record = record_of(read_picture(lr))
    assert (record.scale, record.size, record.model) == (2, (19, 25), "unnamed_x2")
    assert run(capsys, "upscale", lr, tmp_path / "out.png", "--weights", checkpoint).code == 0
    assert read_picture(tmp_path / "out.png").size == (37, 50)
    found = run(
        capsys,
        "downscale",
        tmp_path / "photo.png",
        tmp_path / "b.png",
        "--model",
        "iirn_x4",
        "--weights",
        checkpoint,
    )
    assert (found.code, "of scale 2, not iirn_x4" in found.err) == (2, True)


def test_lossy_lr_only_if_asked_for(tmp_path, capsys, tiny) -> None:
    source = save(tmp_path / "photo.png", photograph(37, 50))
    for name, options in (("a.jpg", ()), ("a.webp", ("--quality", 80)), ("lr", ("--format", "jpg"))):
        found = run(capsys, "downscale", source, tmp_path / name, *tiny, *options)
        assert found.code == 2
        assert "is lossy: it changes the pixels of LR" in found.errors[0]
        assert "--allow-lossy" in found.errors[0]
        assert not (tmp_path / name).exists()
        found = run(capsys, "downscale", source, tmp_path / name, *tiny, *options, "--allow-lossy")
        assert found.code == 0
        assert "is lossy" in found.err
        found = run(capsys, "upscale", tmp_path / name, tmp_path / "sr", *tiny, "--force")
        assert found.code == 0
        assert "LR was stored with loss" in found.err
        assert read_picture(next((tmp_path / "sr").iterdir())).size == (37, 50)
    assert run(capsys, "downscale", source, tmp_path / "b.webp", *tiny).code == 0


def test_pictures_come_back_in_the_format_they_had(tmp_path, capsys, tiny) -> None:
    folder = tmp_path / "in"
    for suffix in (".jpg", ".tif", ".webp", ".png", ".bmp"):
        save(folder / f"of{suffix[1:]}{suffix}", photograph(37, 50))
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "foreign.png").write_bytes((folder / "ofpng.png").read_bytes())
    assert run(capsys, "downscale", folder, tmp_path / "small", *tiny).code == 0
    arguments = ("upscale", tmp_path / "small", tmp_path / "big", "--format", "original", "--quality", 90)
    found = run(capsys, *arguments, *tiny)
    assert (found.code, len(found.errors)) == (1, 1)  # the foreign one
    names = ["ofbmp.png", "ofjpg.jpg", "ofpng.png", "oftif.tif", "ofwebp.webp"]
    assert sorted(path.name for path in (tmp_path / "big").iterdir()) == names
    assert (tmp_path / "big" / "ofjpg.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    again = run(capsys, *arguments, *tiny, "--resume")
    assert "5 skipped" in again.out
    refused = run(capsys, "downscale", folder, tmp_path / "x", "--format", "original", *tiny)
    assert refused.code == 2
    assert "original" in refused.err


def test_records_are_read_with_care() -> None:
    facts = dict(
        zip(
            Record.__dataclass_fields__,
            ("lr", "m", "0", 4, (1, 2), (1, 1), 3, False, 8, "0", "PNG", None, 90, "1"),
            strict=True,
        )
    )
    record = Record(**facts)
    assert Record.parse(record.text()) == record
    for text in (
        "",
        "[]",
        "null",
        '{"format": 1}',
        "[" * 100000,
        record.text().replace("[1, 2]", '["a", 2]'),
    ):
        with pytest.raises(ConfigError, match="metadata"):
            Record.parse(text)
    for bad in ({"scale": 0}, {"original_size": (0, 5)}, {"kind": "x"}, {"bits": True}, {"model": 3}):
        with pytest.raises(ConfigError, match="metadata"):
            Record.parse(Record(**(facts | bad)).text())


# The other commands


def test_roundtrip_compares_with_bicubic(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in" / "a.png", photograph(40, 48))
    save(tmp_path / "in" / "b.png", photograph(9, 7, 1))
    save(tmp_path / "in" / "c.png", photograph(64, 64, deep=True)[..., 0])
    found = run(capsys, "roundtrip", tmp_path / "in")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[1].split() == [
        "size",
        "LR",
        "ours",
        "bicubic",
        "ours",
        "bicubic",
        "original",
        "PNG",
        "PNG",
        "picture",
    ]
    size, small, ours, bicubic, _, _, original, lr, restored, name = lines[2].split()
    assert (size, small, name) == ("48x40", "12x10", str(tmp_path / "in" / "a.png"))
    assert int(original.replace(",", "")) == (tmp_path / "in" / "a.png").stat().st_size
    assert lines[-1] == "wrote roundtrip.png"
    means = [float(word) for word in lines[-2].split()[:2]]
    assert lines[-2].split()[2:] == ["mean", "of", "3"]
    assert means[0] == pytest.approx(sum(float(line.split()[2]) for line in lines[2:5]) / 3, abs=0.011)
    assert run(capsys, "downscale", tmp_path / "in" / "a.png", "small.png").code == 0
    assert run(capsys, "upscale", "small.png", "large.png").code == 0
    written = [Path(name).stat().st_size for name in ("small.png", "large.png")]
    assert [int(count.replace(",", "")) for count in (lr, restored)] == pytest.approx(written, abs=8)
    assert float(ours) != float(bicubic)
    with Image.open("roundtrip.png") as image:
        assert image.size == (10 + 4 * 202, 10 + 3 * 246)
    refused = run(capsys, "roundtrip", tmp_path / "in")
    assert (refused.code, "roundtrip.png exists; pass --force" in refused.err) == (2, True)


def test_models_are_listed(capsys) -> None:
    found = run(capsys, "models")
    assert found.code == 0
    found_rows = json.loads(run(capsys, "models", "--json").out)
    rows = {(row["model"], row["weights"].partition(" ")[0]): row for row in found_rows}
    assert rows["esrgan_x4", "none"]["parameters"] == sum(p.numel() for p in esrgan_x4().parameters())
    best = IIRN_X4_Weights.DEFAULT
    assert rows["iirn_x4", best.name]["licence"] == best.licence
    assert rows["iirn_x4", best.name]["weights"] == f"{best.name} (default)"
    assert (rows["iirn_x4", best.name]["kind"], rows["esrgan_x4", "none"]["kind"]) == (
        "rescaler",
        "super-resolver",
    )
    assert {model for model, weights in rows if weights != "none"} == set(list_models(pretrained=True))
    for line in (f"{best.parameters:,}", best.licence, f"{best.metrics['Set5']['psnr_rgb']:.2f}"):
        assert line in found.out


def test_a_model_that_cannot_be_made_does_not_hide_the_others(capsys, own_registries) -> None:
    def broken(*, weights=None):
        raise RuntimeError("no such file: parts.bin")

    register_model(broken, name="broken_x4")
    found = run(capsys, "models")
    assert found.code == 0
    assert "broken_x4" in found.out
    assert "cannot be made as it is (no such file: parts.bin)" in found.out
    assert "iirn_x4" in found.out


def test_info_says_what_files_carry(tmp_path, capsys) -> None:
    lr = _lr(tmp_path, capsys)
    facts = json.loads(run(capsys, "info", lr, "--json").out)
    assert facts["model"] == "iirn_x4, scale 4"
    assert facts["original size"] == "50x37"
    assert facts["pixels"] == "as written"
    assert "made by: nothing of this library" in run(capsys, "info", tmp_path / "photo.png").out
    shipped = IIRN_X4_Weights.DEFAULT.locate()
    assert f"shipped as: iirn_x4 {IIRN_X4_Weights.DEFAULT.name}" in run(capsys, "info", shipped).out
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(shipped.read_bytes()[:-1])
    for path in (bad, tmp_path / "nothing.png", tmp_path):
        found = run(capsys, "info", path)
        assert (found.code, len(found.errors)) == (2, 1)


def test_train_is_the_training_program(tmp_path, capsys) -> None:
    found = run(capsys, "train", "--help")
    assert (found.code, found.out.split()[:3]) == (0, ["usage:", "invertible-rescaling", "train"])
    folder_of(tmp_path / "in", 3, side=48)
    options = ("--model", "linear_x2", "--patch", 16, "--batch-size", 1, "--steps", 2, "--cpu", "--quiet")
    found = run(capsys, "train", "--data", tmp_path / "in", "--out", tmp_path / "out", *options)
    assert (found.code, "done: 2 steps" in found.out) == (0, True)
    assert load_checkpoint(tmp_path / "out" / "last.safetensors").config == linear_x2().config
    found = run(capsys, "train", "--data", tmp_path / "nowhere")
    assert (found.code, found.err.count("\n"), "there is no folder" in found.err) == (2, 1, True)


def test_what_training_needs_and_is_not_there_is_named(capsys, monkeypatch) -> None:
    for module in ("program", "trainer"):
        monkeypatch.delitem(sys.modules, f"invertible_rescaling.training.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    found = run(capsys, "train", "--data", "nowhere")
    assert found.code == 2
    assert found.err == "error: training needs accelerate: pip install 'invertible_rescaling[train]'\n"


def test_help_and_version(capsys) -> None:
    assert run(capsys, "--version").out == f"{__version__}\n"
    for command in ((), ("downscale",), ("upscale",), ("roundtrip",), ("models",), ("info",)):
        assert "Usage" in run(capsys, *command, "--help").out


def test_what_is_not_installed_is_named(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["models"]) == 2
    assert capsys.readouterr().err == (
        "error: the command line needs typer: pip install 'invertible_rescaling[cli]'\n"
    )


@pytest.mark.parametrize(
    ("name", "size", "tiles"),
    [
        ("linear_x4", (1024, 1024), {}),
        ("linear_x4", (1024, 1025), {"tile": 1024, "overlap": 36}),
        ("linear_x2", (9000, 9000), {"tile": 1024, "overlap": 14}),
    ],
)
def test_models_that_pool_nothing_go_in_tiles_that_see_enough(name: str, size, tiles: dict) -> None:
    rescaler = load(ModelChoice(name)).in_tiles(None, size)
    assert rescaler._tiles(size) == tiles
    if tiles:
        assert tiles["overlap"] >= rescaler.model.receptive_field


def test_a_model_that_sees_too_far_goes_without_tiles() -> None:
    assert PictureRescaler(irn_x4().eval())._tiles((1500, 1500)) == {}
