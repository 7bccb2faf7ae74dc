"""Curves of runs: what is read of their logs, and a picture that shows what it should."""

import json

import pytest

import draw_curves
from curves import COLOURS, CurveError, read_curves
from invertible_rescaling.images import read_image


@pytest.fixture
def run(tmp_path):
    def make(name="run", rise=4.0, steps=2000):
        folder = tmp_path / name
        folder.mkdir()
        entries = [{"step": 0, "bicubic": {"psnr_rgb": 26.85}}]
        for step in range(50, steps + 1, 50):
            entries.append({"step": step, "loss": {"total": 0.1 / step**0.3}})
            if step % 500 == 0:
                entries.append({"step": step, "val": {"psnr_rgb": 27.0 + rise * step / steps}})
        (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return folder

    return make


def has(picture, colour):
    wanted = picture.new_tensor(list(bytes.fromhex(colour[1:])))
    return bool((picture == wanted.view(3, 1, 1)).all(dim=0).any())


def test_a_log_gives_psnr_loss_and_bicubic(run):
    curves = read_curves(run())
    assert curves.name == "run"
    assert curves.psnr == [(500, 28.0), (1000, 29.0), (1500, 30.0), (2000, 31.0)]
    assert len(curves.loss) == 40
    assert curves.bicubic == 26.85
    assert read_curves(run("other") / "log.jsonl").name == "other"


def test_torn_lines_and_figures_that_are_none_are_passed_over_and_later_lines_hold(run):
    log = run() / "log.jsonl"
    log.write_text(
        log.read_text()
        + '[1]\n{"step": 1500, "val": {"psnr_rgb": 9.5}}\n{"step": 1600, "val": {"psnr_rgb": NaN}}\n{"st'
    )
    assert read_curves(log).psnr == [(500, 28.0), (1000, 29.0), (1500, 9.5)]


@pytest.mark.parametrize("content", [None, "", '{"step": 0, "bicubic": {"psnr_rgb": 26.85}}\n'])
def test_a_log_without_curves_is_named(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(CurveError, match=r"log\.jsonl"):
        read_curves(tmp_path)
    assert draw_curves.main([str(tmp_path), "--out", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_each_run_has_its_colour_in_the_picture(run, tmp_path):
    out = tmp_path / "curves.png"
    assert draw_curves.main([f"first={run('a')}", str(run("b=c", rise=1.0)), "--out", str(out)]) == 0
    picture = read_image(out)
    assert has(picture, COLOURS[0])
    assert has(picture, COLOURS[1])
    assert not has(picture, COLOURS[2])


@pytest.mark.parametrize("part", ["val", "loss"])
def test_a_run_with_one_curve_or_one_point_is_drawn(run, tmp_path, part):
    log = run() / "log.jsonl"
    lines = [line for line in log.read_text().splitlines() if f'"{part}"' in line]
    for kept in (lines, lines[:1]):
        log.write_text("\n".join(kept))
        assert draw_curves.main([str(log), "--out", str(tmp_path / "a.png")]) == 0
