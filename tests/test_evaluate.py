"""The table over benchmark folders: its figures, its convention, and what it says of bad input."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

import evaluate
from evaluation.paper import PAPER, shipped
from evaluation.picture import cut, find_spot, overview
from invertible_rescaling import (
    InvertibleRescaler,
    create_model,
    iirn_x4,
    irn_x4,
    list_models,
    load_checkpoint,
    psnr,
    register_model,
    save_checkpoint,
    srcnn_x4,
    ssim,
)
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.images import from_uint8, read_image, write_image
from invertible_rescaling.images.contact_sheet import CAPTION, MARGIN, SIDE
from invertible_rescaling.training.config import TrainingConfig
from invertible_rescaling.weights import IIRN_X4_Weights, weights_of
from invertible_rescaling.weights.checkpoint import write_checkpoint

KERNEL_HALF = "bicubic (MATLAB's kernel, a = -0.5)"
KERNEL_SHARP = "bicubic (enlarged with a = -0.75)"
UNTRAINED = "iirn_x4, untrained (x4 crdb 8+8, wavelet latent)"


def picture(height: int, width: int) -> torch.Tensor:
    """Something between noise and a photograph."""
    coarse = torch.rand(1, 3, height // 3 + 2, width // 3 + 2)
    smooth = interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (smooth[0] * 255).round().to(torch.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two benchmarks, one with sides that are no multiples of the scale."""
    for name, sizes in {"SetA": [(32, 40), (24, 28)], "SetB": [(37, 30)]}.items():
        (tmp_path / "sets" / name).mkdir(parents=True)
        for index, size in enumerate(sizes):
            write_image(tmp_path / "sets" / name / f"{index}.png", picture(*size))
    return tmp_path / "sets"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small model whose couplings do something."""
    model = iirn_x4(blocks=(1, 1))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.02)
    save_checkpoint(model, tmp_path / "best.safetensors")
    return tmp_path / "best.safetensors"


def run(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    code = evaluate.main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, dict[str, Any], str]:
    code, out, err = run(capsys, *argv, "--json", "-")
    return code, json.loads(out), err


def figures(report: dict[str, Any], row: str, benchmark: str) -> dict[str, float]:
    (found,) = [r for r in report["rows"] if r["name"] == row]
    return found["figures"][benchmark]


def expected(path: Path, method: Any, scale: int = 4) -> dict[str, float]:
    """The same figures by another road: straight from the definition, on one image."""
    image = read_image(path)
    height, width = image.shape[1] // scale * scale, image.shape[2] // scale * scale
    hr = from_uint8(image[None, :, :height, :width])
    bicubic = quantize(bicubic_resize(hr, (height // scale, width // scale)))
    lr, sr = method(hr, bicubic)
    sr = sr.clamp(0, 1)
    return {
        "psnr_rgb": float(psnr(sr, hr, border=scale)),
        "ssim_rgb": float(ssim(sr, hr, border=scale)),
        "psnr_y": float(psnr(sr, hr, space="y", border=scale)),
        "ssim_y": float(ssim(sr, hr, space="y", border=scale)),
        "psnr_lr": float(psnr(lr, bicubic)),
    }


def test_bicubic_follows_the_convention(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, err = run_json(capsys, folder)
    assert (code, err) == (0, "")
    for row, antialias in ((KERNEL_HALF, True), (KERNEL_SHARP, False)):
        for benchmark in ("SetA", "SetB"):
            each = [
                expected(
                    path,
                    lambda hr, lr, up=antialias: (lr, bicubic_resize(lr, tuple(hr.shape[2:]), antialias=up)),
                )
                for path in sorted((folder / benchmark).iterdir())
            ]
            found = figures(report, row, benchmark)
            assert found.pop("psnr_lr") is None  # its LR is the reference
            for key, value in found.items():
                assert value == pytest.approx(sum(e[key] for e in each) / len(each), abs=1e-6)


def test_a_checkpoint_is_measured_as_its_user_would_use_it(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report, _ = run_json(capsys, folder / "SetB", "--checkpoint", checkpoint)
    model = load_checkpoint(checkpoint).eval()

    def method(hr: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lr = model.downscale(hr)
        return lr, model.upscale(lr, size=(hr.shape[2], hr.shape[3]))

    assert code == 0
    found = figures(report, "best (x4 crdb 1+1, wavelet latent)", "SetB")
    assert found == pytest.approx(expected(folder / "SetB" / "0.png", method), abs=1e-3)
    assert report["rows"][-1]["config"]["blocks"] == [1, 1]
    assert report["rows"][-1]["file"] == str(checkpoint)


def test_an_untrained_model_is_the_latent_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(iirn_x4(blocks=0), tmp_path / "none.safetensors")
    options = ("--model", "iirn_x4", "--checkpoint", tmp_path / "none.safetensors")
    code, report, _ = run_json(capsys, folder, *options)
    assert code == 0
    assert report["rows"][2]["name"] == UNTRAINED
    alone = figures(report, "none (x4 crdb 0+0, wavelet latent)", "SetA")
    assert figures(report, UNTRAINED, "SetA") == pytest.approx(alone, abs=1e-4)


def test_the_table_is_aligned_and_states_the_convention(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, folder, "--checkpoint", checkpoint)
    assert (code, err) == (0, "")
    for stated in (
        "8 bits",
        "clamped to [0, 1] and not rounded",
        "border of 4",
        "BT.601",
        "read as RGB",
        "11x11",
    ):
        assert stated in out
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert len({len(line) for line in table}) == 1
    assert table[0].count("|") == table[1].count("|") == 8
    assert "SetA RGB PSNR/SSIM" in table[0]
    assert "SetB LR PSNR" in table[0]
    assert "same" in table[2]
    assert "SetA: 2 of 2 images measured\nSetB: 1 of 1 images measured\n" in out


def test_the_json_holds_what_the_table_shows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.json"
    target.write_text("older")
    code, out, _ = run(capsys, folder, "--json", target)
    report = json.loads(target.read_text())
    assert code == 0
    assert f"{figures(report, KERNEL_HALF, 'SetA')['psnr_rgb']:.2f}/" in out
    assert set(report["convention"]) >= {line for line in out.splitlines() if line.startswith("PSNR in dB")}
    assert report["scale"] == report["border"] == 4
    assert [p.name for p in tmp_path.iterdir() if "out.json" in p.name] == ["out.json"]


def test_another_scale_and_a_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder, "--scale", "3", "--limit", "1")
    assert code == 0
    assert "multiple of 3" in out
    assert "SetA: 1 of 2 images measured, the first 1 taken (--limit)" in out


def test_a_latent_of_choice(folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, _ = run_json(
        capsys, folder / "SetB", "--model", "iirn_x4", "--checkpoint", checkpoint, "--latent", "zero"
    )
    names = [row["name"] for row in report["rows"][2:]]
    assert code == 0
    assert names == [
        "iirn_x4, untrained (x4 crdb 8+8, zero latent)",
        "best (x4 crdb 1+1, zero latent)",
    ]
    box = expected(
        folder / "SetB" / "0.png",
        lambda hr, _: (quantize(down := torch.nn.functional.avg_pool2d(hr, 4)), nearest(quantize(down))),
    )
    # Means of 16 pixels are often halves, which the two roads may round differently.
    assert figures(report, names[0], "SetB") == pytest.approx(box, abs=0.05)


def nearest(lr: torch.Tensor) -> torch.Tensor:
    return interpolate(lr, scale_factor=4, mode="nearest")


def test_random_latents_give_the_same_table_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(irn_x4(blocks=0), tmp_path / "irn.safetensors")
    first = run(capsys, folder, "--checkpoint", tmp_path / "irn.safetensors")
    assert run(capsys, folder, "--checkpoint", tmp_path / "irn.safetensors") == first
    assert first[0] == 0


def test_every_folder_with_images_is_a_benchmark_told_apart_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parts in (("a", "Set.v2"), ("b", "Set.v2")):
        tmp_path.joinpath(*parts).mkdir(parents=True)
        write_image(tmp_path.joinpath(*parts, "0.png"), picture(24, 24))
    _, report, _ = run_json(capsys, tmp_path / "a", tmp_path / "b", tmp_path / "a" / "Set.v2")
    assert [b["name"] for b in report["benchmarks"]] == ["a/Set.v2", "b/Set.v2"]
    assert [b["found"] for b in report["benchmarks"]] == [1, 1]
    _, report, _ = run_json(capsys, tmp_path / "a")
    assert [b["name"] for b in report["benchmarks"]] == ["Set.v2"]


def test_checkpoints_of_one_name_are_told_apart(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for run_name in ("one", "two"):
        (tmp_path / run_name).mkdir()
        paths.append(tmp_path / run_name / "best.safetensors")
        save_checkpoint(iirn_x4(blocks=0), paths[-1])
    _, report, _ = run_json(capsys, folder, "--checkpoint", *paths)
    assert [r["name"].split(" ")[0] for r in report["rows"][2:]] == ["one/best", "two/best"]


def test_a_perfect_figure_is_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "white.png", torch.full((3, 24, 24), 255, dtype=torch.uint8))
    save_checkpoint(iirn_x4(blocks=0), tmp_path / "m.safetensors")
    code, report, _ = run_json(capsys, tmp_path, "--checkpoint", tmp_path / "m.safetensors")
    assert code == 0
    assert report["rows"][2]["figures"][tmp_path.name]["psnr_lr"] is None
    _, out, _ = run(capsys, tmp_path, "--checkpoint", tmp_path / "m.safetensors")
    assert "| inf/1.0000 | same |" in " ".join(out.split())


def test_shipped_weights_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, err = run_json(
        capsys, folder / "SetB", "--model", "iirn_x4:DEFAULT", "iirn_x4:V9", "iirn_x4"
    )
    assert code == 2
    assert "'V9'" in one_line_of(err)
    trained, untrained = report["rows"][2:]
    assert trained["name"] == "iirn_x4, DEFAULT (x4 crdb 8+8, wavelet latent)"
    last = IIRN_X4_Weights.DEFAULT.recipe["runs"][-1]
    assert trained["budget"].endswith(
        f"{last['steps']:,} steps of {last['batch_size']} {last['patch']}x{last['patch']}"
    )
    assert untrained["budget"] is None
    model = iirn_x4(weights="DEFAULT").eval()

    def method(hr: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lr = model.downscale(hr)
        return lr, model.upscale(lr, size=(hr.shape[2], hr.shape[3]))

    found = figures(report, trained["name"], "SetB")
    assert found == pytest.approx(expected(folder / "SetB" / "0.png", method), abs=1e-3)


def test_weights_from_a_path_tell_what_they_were_trained_under(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TrainingConfig(model="srcnn_x4", steps=9999, batch_size=4, patch=64).fixed
    told = {"step": 1234, "options": options}
    save_checkpoint(srcnn_x4(), tmp_path / "told.safetensors", metadata=told)
    save_checkpoint(srcnn_x4(), tmp_path / "silent.safetensors")
    given = [f"srcnn_x4:{tmp_path / name}.safetensors" for name in ("told", "silent")]
    code, report, _ = run_json(capsys, folder / "SetB", "--model", *given)
    assert code == 0
    assert [row["budget"] for row in report["rows"][2:]] == ["1,234 steps of 4 64x64", None]


@pytest.mark.parametrize(
    ("told", "budget"),
    [
        ({"step": 3, "options": ["a"]}, None),
        ({"step": "3", "options": {}}, None),
        ({"step": 3, "options": {"batch_size": "four", "patch": 8}}, "3 steps"),
        ({"step": 3, "options": {"hours": "two", "device": "a", "model": 4}}, "3 steps"),
        ({"step": 3, "options": {"gan": "esrgan"}}, "3 steps; esrgan's adversarial loss"),
        ({}, None),
    ],
)
def test_what_another_program_wrote_into_a_checkpoint_does_no_harm(
    told: dict[str, Any],
    budget: str | None,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_checkpoint(iirn_x4(blocks=0), tmp_path / "m.safetensors", metadata=told)
    code, report, _ = run_json(capsys, folder / "SetB", "--checkpoint", tmp_path / "m.safetensors")
    assert code == 0
    assert report["rows"][2]["budget"] == budget


@pytest.mark.parametrize(
    ("model", "gan", "system"),
    [
        ("srgan_x4", "srgan", "SRGAN"),
        ("srgan_x4", None, "SRResNet"),
        ("srresnet_x4", "srgan", "SRGAN"),
        ("srresnet_x4", None, "SRResNet"),
        ("edsr_x4", None, ""),  # says one thing and holds another
    ],
)
def test_a_system_of_the_paper_is_what_it_was_trained_as(
    model: str, gan: str | None, system: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"step": 3, "options": {"model": model, "gan": gan}}
    file = tmp_path / "m.safetensors"
    save_checkpoint(create_model("srresnet_x4", width=4, blocks=1), file, metadata=told)
    code, out, _ = run(capsys, folder / "SetB", "--paper", "--checkpoint", file)
    assert code == 0
    assert [line[0] for line in paper_lines(out) if line[1:] and line[1].startswith("m (")] == [system]


def test_lr_goes_through_a_codec_where_that_is_asked_for(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (folder, "--checkpoint", checkpoint)
    _, plain, _ = run_json(capsys, *arguments)
    code, stored, err = run_json(capsys, *arguments, "--through", "jpeg:30")
    assert (code, err, stored["through"]) == (0, "", "jpeg:30")
    assert any("LR goes through jpeg:30" in sentence for sentence in stored["convention"])
    for row in (KERNEL_HALF, plain["rows"][-1]["name"]):
        clean, lossy = (figures(report, row, "SetA") for report in (plain, stored))
        assert lossy["psnr_rgb"] < clean["psnr_rgb"]
        assert lossy["psnr_lr"] == clean["psnr_lr"]  # LR as it is stored, before
    code, _, err = run(capsys, folder, "--through", "crop:0.5")
    assert (code, "crop:0.5 changes what should come back" in err) == (2, True)


def test_tiles_are_those_of_the_models_own_calls(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = {"tile": 16, "overlap": 4}
    options = ("--checkpoint", checkpoint, "--model", "srcnn_x4", "--tile", "16", "--overlap", "4")
    code, report, _ = run_json(capsys, folder / "SetB", *options)
    assert code == 0
    assert (report["tile"], report["overlap"]) == (16, 4)
    assert (
        "Rescalers work in tiles of 16 HR pixels, each on its own with 4 around it." in report["convention"]
    )
    model = load_checkpoint(checkpoint).eval()

    def method(hr: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lr = model.downscale(hr, **tiles)
        return lr, model.upscale(lr, size=(hr.shape[2], hr.shape[3]), **tiles)

    name = "best (x4 crdb 1+1, wavelet latent)"
    tiled = figures(report, name, "SetB")
    assert tiled == pytest.approx(expected(folder / "SetB" / "0.png", method), abs=1e-3)
    _, whole, _ = run_json(capsys, folder / "SetB", "--checkpoint", checkpoint)
    assert tiled["psnr_rgb"] != figures(whole, name, "SetB")["psnr_rgb"]
    assert report["convention"] != whole["convention"]


# ---- the paper's table and its picture


def paper_lines(out: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")
    ]


@pytest.fixture
def trained(tmp_path: Path) -> list[Path]:
    """Checkpoints as the training program leaves them: of EDSR, and of a user's own variant of IIRN."""
    files = []
    for name, model in {
        "edsr_x4": create_model("edsr_x4", width=4, blocks=1),
        "iirn_x4": iirn_x4(blocks=1),
    }.items():
        told = {"step": 1234, "options": TrainingConfig(model=name, steps=9999, batch_size=4, patch=64).fixed}
        files.append(tmp_path / f"my_{name}.safetensors")
        save_checkpoint(model, files[-1], metadata=told)
    return files


def test_the_papers_table_has_every_system_and_says_what_is_not_trained(
    folder: Path, trained: list[Path], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "SetB").rename(folder / "Set5")
    code, out, err = run(capsys, folder, "--paper", "--checkpoint", *trained, checkpoint)
    assert (code, err) == (0, "")
    assert out.index("## Set5") < out.index("## SetA")
    lines = paper_lines(out)
    half = len(lines) // 2
    head, _, *set5 = lines[:half]
    assert head[:3] == ["system", "measured here", "trained for"]
    by_system: dict[str, list[list[str]]] = {}
    for line in set5:
        by_system.setdefault(line[0], []).append(line)
    assert list(by_system) == [
        *("bicubic", "SRCNN", "SRResNet", "SRGAN", "ESRGAN", "EDSR", "IRN", "IIRN", ""),
    ]
    edsr = by_system["EDSR"][-1]  # what ships comes first
    assert edsr[1] == "my_edsr_x4 (x4 edsr, on bicubic LR)"
    assert edsr[2] == "1,234 steps of 4 64x64"
    assert edsr[3] == "30.22/0.85"
    assert math.isfinite(float(edsr[4].split("/")[0]))
    iirn = by_system["IIRN"]
    assert [line[1].split(" ")[0] for line in iirn] == ["iirn_x4,", "my_iirn_x4"]
    assert {line[3] for line in iirn} == {"32.99/0.91"}
    (irn,) = by_system["IRN"]
    if not len(weights_of("irn_x4")):
        assert irn[1:] == ["-", "not trained", "33.11/0.91", "-", "36.19/.9451", "-", "-"]
    (own,) = by_system[""]  # a checkpoint that does not say what it is
    assert own[1].startswith("best ")
    assert own[3] == own[5] == ""
    for line in lines[half + 2 :]:
        assert line[3] == line[5] == ""  # nothing is printed of SetA


def test_the_papers_table_takes_all_weights_that_ship() -> None:
    names = [name for name in PAPER if len(weights_of(name))]
    assert shipped() == [f"{name}:DEFAULT" for name in names]
    assert "iirn_x4" in names
    assert set(PAPER) <= set(list_models())


def test_crops_of_one_image_by_every_row(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "crops.png"
    options = ("--checkpoint", checkpoint, "--model", "iirn_x4", "--picture", target)
    code, _, err = run(capsys, folder, *options)
    assert (code, err) == (0, "")
    four_wide = read_image(target)  # five panels: overview, original, bicubic and two models
    assert four_wide.shape == (3, MARGIN + 2 * (SIDE + CAPTION + MARGIN), MARGIN + 4 * (SIDE + MARGIN))
    assert run(capsys, folder, *options, "--crop", "4", "8", "12")[0] == 0
    assert not torch.equal(read_image(target), four_wide)


def test_the_crop_is_cut_where_it_is_said(folder: Path) -> None:
    hr = torch.rand(1, 3, 30, 40)
    assert torch.equal(cut(hr, find_spot(hr, (4, 8, 12))), hr[..., 4:16, 8:20])
    assert find_spot(hr, None) == (0, 5, 30)
    assert cut(torch.rand(1, 3, 300, 300), (0, 0, 300)).shape == (1, 3, SIDE, SIDE)
    framed = overview(hr, (4, 8, 12))
    assert torch.equal(framed[..., 4:16, 8:20], hr[..., 4:16, 8:20])
    assert (framed[:, 0, 3, 8:20] == 1).all()
    assert torch.equal(framed[..., 20:, 30:], hr[..., 20:, 30:])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--crop", "30", "0", "20"), "--crop 30 0 20 does not lie within an image of 40x32"),
        (("--picture", "taken.png"), "cannot write --picture"),
        (("--picture-of", "nine"), "no image 'nine' was measured"),
    ],
)
def test_a_picture_that_cannot_be_drawn_still_leaves_the_table(
    options: tuple[str, ...], says: str, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = ("--picture", tmp_path / "crops.png")
    (tmp_path / "taken.png").mkdir()
    given = [str(tmp_path / part) if part.endswith(".png") else part for part in options]
    code, out, err = run(capsys, folder, *target, *given)
    assert code == 2
    assert says in one_line_of(err)
    assert KERNEL_HALF in out


def test_a_picture_without_an_image(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    code, _, err = run(capsys, folder, "--picture", tmp_path / "crops.png")
    assert code == 2
    assert "there is no image to draw" in err
    assert not (tmp_path / "crops.png").exists()


# ---- bad input


def one_line_of(err: str) -> str:
    (line,) = err.splitlines()
    assert line.startswith("evaluate.py: ")
    return line


def test_corrupt_and_small_images_are_named_skipped_and_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, before, _ = run_json(capsys, folder)
    (folder / "SetA" / "bad.png").write_bytes(b"no image")
    write_image(folder / "SetA" / "small.png", picture(18, 200))
    code, out, err = run(capsys, folder)
    assert code == 2
    assert "SetA: 2 of 4 images measured, 2 skipped: " in out
    for name in ("bad.png", "small.png"):
        assert name in out
        assert name in err
    assert "at least 20x20" in err
    assert len(err.splitlines()) == 2
    _, after, _ = run_json(capsys, folder)
    assert [row["figures"] for row in after["rows"]] == [row["figures"] for row in before["rows"]]
    assert len(after["benchmarks"][0]["skipped"]) == 2


def test_the_least_size_it_names_is_the_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in (19, 20):
        write_image(tmp_path / f"{side}.png", picture(side, side))
    code, out, err = run(capsys, tmp_path)
    assert code == 2
    assert "19.png is too small" in one_line_of(err)
    assert "1 of 2 images measured, 1 skipped" in out


def test_a_benchmark_of_which_nothing_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "SetB" / "0.png").write_bytes(b"")
    code, out, err = run(capsys, folder)
    assert code == 2
    assert "SetB: 0 of 1 images measured, 1 skipped" in out
    assert "SetB: no image is left to measure" in err
    assert "SetA: 2 of 2" in out


def test_a_missing_and_an_empty_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run(capsys, tmp_path / "absent")
    assert (code, out) == (2, "")
    assert "there is no folder" in one_line_of(err)
    code, out, err = run(capsys, tmp_path / "empty", folder)
    assert code == 2
    assert "no image in" in one_line_of(err)
    assert "SetA: 2 of 2" in out


def test_models_that_do_not_fit_leave_the_other_rows(
    folder: Path, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], own_registries: None
) -> None:
    register_model(lambda weights=None: torch.nn.Identity(), name="enlarger_x4")
    register_model(lambda weights=None: InvertibleRescaler(4, channels=1, blocks=0), name="grey_x4")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(checkpoint.read_bytes()[:-100])
    save_checkpoint(create_model("iirn_x2", blocks=0), tmp_path / "x2.safetensors")
    models = ("--model", "iirn_x5", "iirn_x8", "enlarger_x4", "grey_x4")
    files = ("--checkpoint", broken, tmp_path / "absent", tmp_path / "x2.safetensors", checkpoint)
    code, out, err = run(capsys, folder / "SetB", *models, *files)
    assert code == 2
    assert "best (x4 crdb 1+1" in out
    says = (
        "'iirn_x5'; did you mean",
        "--model iirn_x8 is a model of scale 8, not 4: use --scale 8",
        "enlarger_x4 is a Identity, which does not shrink",
        "grey_x4 takes 1 channels",
        "broken.safetensors is cut short",
        "no checkpoint file",
        "x2.safetensors is a model of scale 2, not 4: use --scale 2",
    )
    assert len(err.splitlines()) == len(says)
    for line, fragment in zip(err.splitlines(), says, strict=True):
        assert fragment in line


def test_an_unknown_latent_is_one_line(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, folder, "--checkpoint", checkpoint, "--latent", "wavlet")
    assert code == 2
    assert "did you mean 'wavelet'" in one_line_of(err)
    assert KERNEL_HALF in out


def test_a_model_that_yields_nan_fails_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = iirn_x4(blocks=1)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    write_checkpoint(tmp_path / "nan.safetensors", dict(model.state_dict()), model.config, {})
    code, out, err = run(capsys, folder / "SetA", "--checkpoint", tmp_path / "nan.safetensors")
    assert code == 2
    assert "failed on" in one_line_of(err)
    (row,) = [line for line in out.splitlines() if line.startswith("| nan")]
    assert row.split("|")[2:5] == [part for part in row.split("|")[2:5] if part.strip() == "-"]


def test_an_unwritable_json_target_still_prints_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, folder, "--json", tmp_path / ".")
    assert code == 2
    assert KERNEL_HALF in out
    assert "cannot write --json" in one_line_of(err)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scale", "1"), "at least 2"),
        (("--scale", "four"), "invalid integer value: 'four'"),
        (("--limit", "0"), "at least 1"),
        (("--crop", "0", "-1", "8"), "--crop needs"),
        (("--crop", "0", "0", "0"), "--crop needs"),
        (("--paper", "--scale", "2"), "--paper is of scale 4"),
        (("--overlap", "4"), "--overlap belongs to --tile"),
        (("--tile", "0"), "at least 1"),
        (("--crop", "0", "0", "8"), "--crop and --picture-of belong to --picture"),
        (("--picture", "crops.pictures"), "the file's name ends with .png or .webp"),
        (("--picture", "/absent/crops.png"), "--picture /absent/crops.png: there is no folder at /absent"),
        (("--json", "/absent/out.json"), "--json /absent/out.json: there is no folder at /absent"),
        (("--device", "abacus"), "cannot use 'abacus'"),
        (("--device", "cuda:99"), "cannot use 'cuda:99'"),
    ],
)
def test_a_mistake_on_the_command_line(
    options: tuple[str, ...], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        evaluate.main([str(folder), *options])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


# ---- known figures


def test_set5_as_published(benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # An untrained coupling is the identity: without couplings the figures are the same, and quicker.
    save_checkpoint(iirn_x4(blocks=0), tmp_path / "untrained.safetensors")
    code, report, _ = run_json(
        capsys, benchmarks / "Set5", "--checkpoint", tmp_path / "untrained.safetensors"
    )
    assert code == 0
    half, sharp, untrained = (row["figures"]["Set5"] for row in report["rows"])
    assert half["psnr_rgb"] == pytest.approx(26.70, abs=0.05)
    assert half["psnr_y"] == pytest.approx(28.42, abs=0.05)
    assert sharp["psnr_rgb"] == pytest.approx(26.90, abs=0.05)
    assert untrained["psnr_rgb"] == pytest.approx(27.28, abs=0.05)
