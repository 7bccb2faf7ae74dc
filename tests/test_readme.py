"""What the README and the documentation show runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from draw_front import points
from invertible_rescaling import iirn_x4, list_models, save_checkpoint
from invertible_rescaling.images import read_image
from invertible_rescaling.weights import weights_of

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_two_commands_set_up_and_run_the_demo_and_the_tests() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)
    assert [command.split(" && ")[-1] for command in commands] == [
        "python examples/train_div2k.py --demo",
        "pytest",
    ]
    assert all("-c constraints.txt" in command for command in commands)


def test_pictures_of_the_readme_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((Path(__file__).parents[1] / picture).is_file() for picture in pictures)


@pytest.mark.parametrize("code", PYTHON)
def test_every_python_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/demo").mkdir(parents=True)
    save_checkpoint(iirn_x4(blocks=1), "runs/demo/best.safetensors")
    pixels = torch.randint(256, (30, 41, 3), dtype=torch.uint8).numpy()
    Image.fromarray(pixels).save("photo.jpg")
    exec(compile(code, "README.md", "exec"), {})
    if "restored.png" in code:
        assert read_image("restored.png").shape == (3, 30, 41)
        assert read_image("small.png").shape == (3, 8, 11)


@pytest.mark.parametrize("page", ["index.md", "models.md", "cli.md", "lossy.md", "training.md"])
def test_the_blocks_of_the_pages_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photographs").mkdir()
    Path("photos").mkdir()
    for name in ("photo.jpg", "photo.png", "photos/a.png", "photographs/a.png", "photographs/b.png"):
        Image.fromarray(torch.randint(256, (60, 64, 3), dtype=torch.uint8).numpy()).save(name)
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    quickly = 'steps=2, start="none", cpu=True'
    text = text.replace('fit="20m", val_fraction=0.1', f"{quickly}, val_fraction=0.5").replace(
        'fit="20m"', quickly
    )
    picture = torch.randint(256, (3, 60, 64), dtype=torch.uint8)
    names = {"images": [picture, picture], "others": [picture], "hr": picture[None] / 255}
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for code in blocks:
        exec(compile(code, page, "exec"), names)


@pytest.mark.slow  # a model is exported
def test_the_blocks_about_other_libraries_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "ecosystem.md").read_text()
    text = text.replace("iirn_x4", "small_x4")  # which takes minutes less
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(code, "ecosystem.md", "exec"), names)
    assert Path("upscale.onnx").is_file()
    assert names["sr"].shape == (1, 3, 30, 41)
    assert names["again"].config == names["model"].config


def test_the_table_of_models_has_the_figures_of_their_records() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", README, flags=re.MULTILINE)
    names = [name for name, _ in rows]
    for scale in (2, 4, 8):  # the best of each scale, in order
        of_scale = [name for name in list_models(pretrained=True) if name.endswith(f"_x{scale}")]
        rescalers = [n for n in of_scale if "architecture" not in weights_of(n).DEFAULT.config]
        best = max(rescalers, key=lambda name: weights_of(name).DEFAULT.metrics["BSD100"]["psnr_rgb"])
        assert names.pop(0) == best
    assert not names
    costs = {point.model: point.multiply_adds for point in points("Set5")}
    for name, cells in rows:
        member = weights_of(name).DEFAULT
        means = [member.metrics[benchmark] for benchmark in ("Set5", "Set14", "BSD100")]
        rgb, luma = (" / ".join(f"{mean[key]:.2f}" for mean in means) for key in ("psnr_rgb", "psnr_y"))
        expected = [f"{member.parameters:,}", f"{costs[name]:,.0f}", rgb, luma, f"{means[0]['psnr_lr']:.1f}"]
        assert [cell.strip() for cell in cells.split("|")] == expected


def test_the_table_of_weights_for_jpeg_has_the_figures_of_their_records() -> None:
    page = (Path(__file__).parents[1] / "docs" / "lossy.md").read_text()
    rows = re.findall(r"^\| `(\w+)` `(JPEG\d+)` \|(.*)\|$", page, flags=re.MULTILINE)
    members = [(name, m.name) for name in list_models() for m in _members(name) if m.through is not None]
    assert sorted((name, member) for name, member, _ in rows) == sorted(members)
    for name, member, cells in rows:
        metrics = getattr(weights_of(name), member).through["metrics"]
        keys = ("psnr_rgb", "psnr_rgb_bicubic", "psnr_lr")
        sets = ("Set5", "Set14", "BSD100")
        expected = [" / ".join(f"{metrics[each][key]:.2f}" for each in sets) for key in keys]
        assert [cell.strip() for cell in cells.split("|")] == expected


def test_the_pages_say_by_how_much_codecs_are_ahead_as_the_tables_do() -> None:
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "lossy.md").read_text()
    rows = re.findall(r"^\| (?:linear|small|iirn)_x\d +\|(.*)\|$", page, flags=re.MULTILINE)
    table = [[float(cell) for cell in row.split("|")] for row in rows]  # bits, ours, JPEG, ...
    assert len(table) == 8
    for codec, column in (("JPEG", 2), ("AVIF", 4)):
        ahead = [row[column] - row[1] for row in table]
        span = f"{min(ahead):.1f} to {max(ahead):.1f}"
        for text in (page, (docs / "should_i_use_it.md").read_text()):
            assert re.search(rf"{codec}[\w\s]+{re.escape(span)}", text), (codec, span)


def _members(name: str) -> list[Any]:
    return list(weights_of(name)) if name in list_models(pretrained=True) else []


def test_links_between_the_pages_lead_somewhere() -> None:
    root = Path(__file__).parents[1]
    pages = [root / "README.md", root / "CONTRIBUTING.md", *root.glob("docs/*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    ]
    assert len(links) > 10
    made = {f"tutorials/{path.stem}.rst" for path in (root / "examples" / "tutorials").glob("*.py")}
    made.add("tutorials/index.rst")  # a tutorial's page is made when the site is built
    assert not [
        (page.name, target)
        for page, target in links
        if not (page.parent / target).exists() and target not in made
    ]
