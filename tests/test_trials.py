"""Trials that compare variants: what is planned, and what a run of them leaves."""

import itertools
import json
from pathlib import Path

import pytest
from pictures import pictures

import trials
from comparing.plans import IIRN, PLANS, Trial
from comparing.tables import to_markdown
from evaluate import evaluate
from evaluation.task import Task
from invertible_rescaling import create_model
from invertible_rescaling.weights import read_metadata


@pytest.mark.parametrize("plan", sorted(PLANS))
def test_plans_name_each_run_once_and_start_from_runs_before(plan: str) -> None:
    names = [trial.name for trial in PLANS[plan]]
    assert len(set(names)) == len(names)
    for index, trial in enumerate(PLANS[plan]):
        assert trial.start is None or trial.start in names[:index]
        assert ("steps" in trial.options) + trial.fills + (trial.as_long_as is not None) == 1
        create_model(trial.options["model"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Of the claims at x2, one seed, IIRN and IRN as long as that, four steps of IIRN."""
    to = tmp_path_factory.mktemp("trials")
    images = pictures(to / "images", 2, side=48)
    common = ["claims", "--data", images, "--val", images, "--to", to / "runs", "--json", to / "claims.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "TIMED_SECONDS", 0.1)
        patch.setattr(trials, "TURNS", 2)
        for only in ("x2_iirn_crdb_wavelet_latent_0", "x2_irn_with_zeros_for_z_as_long_as_iirn_0"):
            assert trials.main([str(word) for word in (*common, "--steps", 4, "--only", only)]) == 0
    return to


def test_a_run_trains_what_it_starts_from_and_says_what_it_was(finished) -> None:
    gathered = json.loads((finished / "claims.json").read_text())
    assert gathered["planned"] == len(PLANS["claims"])
    rows = {run["row"]: run for run in gathered["done"]}
    assert set(rows) == {
        *("linear code, wavelet z", "linear code, zero z"),
        *(IIRN, "IRN with zeros for z, as long as IIRN"),
    }
    found = rows[IIRN]
    assert (found["steps"], found["batch_size"], found["patch"], found["optimizer"]) == (4, 4, 32, "soap")
    assert found["start"].endswith("x2_linear_code_wavelet_z_0/last.safetensors")
    assert found["core_minutes"] > 0
    assert found["val"]["psnr_rgb"] > 20
    weights = read_metadata(finished / "runs" / "x2_iirn_crdb_wavelet_latent_0" / "last.safetensors")
    assert weights["metadata"]["step"] == 4
    (run,) = weights["metadata"]["runs"]
    assert {key: run[key] for key in ("steps", "batch_size", "patch", "optimizer")} == {
        "steps": 4,
        "batch_size": 4,
        "patch": 32,
        "optimizer": "soap",
    }
    assert run["device"].startswith("one core of ")
    assert "linear_start" not in run  # that was another run


def test_what_is_done_is_not_done_again(finished, capsys) -> None:
    images, runs = (str(finished / name) for name in ("images", "runs"))
    common = ["claims", "--data", images, "--val", images, "--only", "x2_iirn_crdb_wavelet_latent_0", "--to"]
    assert trials.main([*common, runs]) == 0
    assert trials.main([*common, str(finished / "other"), "--json", str(finished / "claims.json")]) == 0
    assert capsys.readouterr().out == ""
    assert len(json.loads((finished / "claims.json").read_text())["done"]) == 4


def test_what_is_trained_is_measured_on_benchmarks_that_it_was_not_measured_on(finished, tmp_path) -> None:
    sets = [pictures(tmp_path / name, 2, side=48) for name in ("SetA", "SetB")]
    images = str(finished / "images")
    common = ["claims", "--data", images, "--val", images, "--only", "x2_iirn_crdb_wavelet_latent_0"]
    common += ["--to", str(finished / "runs"), "--json", str(tmp_path / "out.json"), "--benchmarks"]
    result = finished / "runs" / "x2_iirn_crdb_wavelet_latent_0" / "result.json"
    before = json.loads(result.read_text())
    assert trials.main([*common, str(sets[0])]) == 0
    found = json.loads(result.read_text())
    assert before == {key: value for key, value in found.items() if key != "benchmarks"}
    task = Task(folders=(sets[0],), checkpoints=(result.with_name("last.safetensors"),), scale=2)
    (benchmark,) = evaluate(task).benchmarks
    assert found["benchmarks"]["SetA"]["images"] == 2
    (ours,) = [figures for name, figures in benchmark.figures.items() if not name.startswith("bicubic")]
    assert found["benchmarks"]["SetA"]["psnr_rgb"] == pytest.approx(ours.psnr_rgb, abs=1e-5)
    bicubic = json.loads((tmp_path / "out.json").read_text())["bicubic"]["x2"]["SetA"]
    assert bicubic["psnr_lr"] is None  # it is equal
    theirs = benchmark.figures["bicubic (enlarged with a = -0.75)"]
    assert bicubic["psnr_rgb"] == pytest.approx(theirs.psnr_rgb, abs=1e-5)

    found["benchmarks"]["SetA"]["psnr_rgb"] = 1.0  # as it would not come out again
    result.write_text(json.dumps(found))
    assert trials.main([*common, *map(str, sets)]) == 0
    again = json.loads(result.read_text())["benchmarks"]
    assert again["SetA"]["psnr_rgb"] == 1.0
    assert set(again) == {"SetA", "SetB"}
    result.write_text(json.dumps(before))


def test_steps_of_equal_time_follow_from_what_a_step_takes(tmp_path) -> None:
    plan = [
        Trial("slow", 2, 0, {"model": "iirn_x2", "steps": 100}),
        Trial("fast", 2, 0, {"model": "irn_x2"}, as_long_as="slow"),
        Trial("filled", 2, 0, {"model": "small_x2"}, fills=True),
    ]
    (tmp_path / "pace").mkdir()
    seconds = {"slow": 0.5, "fast": 0.2, "filled": 2.0, "linear start": 0.01}
    (tmp_path / "pace" / "x2.json").write_text(json.dumps(seconds))
    bench = trials.Bench(plan, (), (), tmp_path, minutes=1)
    assert [bench.steps_of(trial) for trial in plan] == [100, 250, 20]  # the last: (60 - 2000 * 0.01) / 2


@pytest.mark.parametrize("step", [0.002, 0.03, 4.0])
def test_a_step_is_timed_over_seconds_and_without_what_is_set_up_once(tmp_path, monkeypatch, step) -> None:
    calls = []

    def seconds(self, trial: Trial, steps: int) -> float:
        calls.append(steps)
        return 1.0 + steps * step + (30.0 if len(calls) == 1 else 0.0)

    monkeypatch.setattr(trials.Bench, "_seconds", seconds)
    only = Trial("any", 2, 0, {"model": "iirn_x2"}, fills=True)
    bench = trials.Bench([only], (), (), tmp_path)
    assert bench.pace(only) == pytest.approx(step)
    assert (calls[-1] - trials.FEW) * step >= trials.TIMED_SECONDS


def test_a_core_that_becomes_slower_gives_no_variant_fewer_steps(tmp_path, monkeypatch) -> None:
    steps = {"IIRN": 0.5, "other": 0.25}
    slowness = itertools.count(100)

    def seconds(self, trial: Trial, count: int) -> float:
        return 1.0 + count * steps[trial.row] * next(slowness) / 100

    monkeypatch.setattr(trials.Bench, "_seconds", seconds)
    plan = [Trial(row, 4, 0, {"model": "iirn_x4"}, fills=True) for row in steps]
    bench = trials.Bench(plan, (), (), tmp_path)
    assert bench.pace(plan[1]) / bench.pace(plan[0]) == pytest.approx(0.5, rel=0.05)


def test_the_table_compares_with_the_first_row_seed_by_seed() -> None:
    def run(row: str, seed: int, psnr: float) -> dict:
        facts = {"scale": 2, "parameters": 1500, "multiply_adds": 2e6, "steps": 600, "core_minutes": 1.5}
        return {"row": row, "seed": seed, "machine": "a", "commit": "b", **facts} | {
            "val": {"psnr_rgb": psnr, "lr_psnr_rgb": 40.0}
        }

    done = [run("linear code", 0, 36.0), run("first", 0, 37.0), run("first", 1, 39.0), run("other", 1, 38.5)]
    lines = to_markdown({"done": done}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert [row[0] for row in cells[2:]] == ["first", "other", "linear code"]
    assert [row[5:8] for row in cells[2:4]] == [["37.00 / 39.00", "38.00", ""], ["38.50", "38.50", "-0.50"]]
    assert lines[-1] == "a; commit b."
    again = [run("first", 0, 37.0), run("other", 0, 36.999) | {"commit": "c"}]
    lines = to_markdown({"done": again}).splitlines()
    assert lines[-1] == "a; commits b, c."
    assert [cell.strip() for cell in lines[5].split("|")[6:9]] == ["37.00", "37.00", "+0.00"]


def test_the_table_of_benchmarks_has_the_mean_of_seeds_and_bicubic() -> None:
    def on(psnr: float, lr: float | None) -> dict:
        return {"images": 2, "psnr_rgb": psnr, "ssim_rgb": 0.9, "psnr_y": psnr + 2, "psnr_lr": lr}

    def run(row: str, seed: int, **benchmarks: dict) -> dict:
        facts = {"scale": 4, "parameters": 1500, "steps": 600, "core_minutes": 19.96}
        facts |= {"machine": "a", "commit": "b", "benchmarks": benchmarks}
        return {"row": row, "seed": seed, **facts}

    done = [
        run("IIRN", 0, SetA=on(30.0, 40.0), SetB=on(20.0, 38.0)),
        run("IIRN", 1, SetA=on(30.5, 41.0)),
        run("edsr_x4", 0, SetA=on(29.0, None)),
        run("IRN", 0),
    ]
    bicubic = {"x4": {"SetA": on(25.0, None), "SetB": on(19.0, None)}}
    lines = to_markdown({"done": done, "bicubic": bicubic}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert cells[0][5:] == ["SetA", "SetB", "Y: SetA / SetB", "LR against bicubic: SetA / SetB"]
    assert cells[2] == ["bicubic", "", "", "", "", "25.00/0.900", "19.00/0.900", "27.00 / 21.00", "same"]
    assert cells[3] == [
        *("IIRN", "1,500", "600", "20.0", "2"),
        *("30.25 ±0.25/0.900", "20.00/0.900", "32.25 / 22.00", "40.5 / 38.0"),
    ]
    assert cells[4][5:] == ["29.00/0.900", "-", "31.00 / -", "same"]
    assert cells[5][5:] == ["-", "-", "- / -", "- / -"]


def test_the_table_of_benchmarks_has_what_the_paper_prints() -> None:
    on = {"images": 5, "psnr_rgb": 30.0, "ssim_rgb": 0.9, "psnr_y": 32.0, "psnr_lr": 40.0}
    facts = {"scale": 4, "parameters": 1500, "steps": 600, "core_minutes": 20.0, "seed": 0}
    facts |= {"machine": "a", "commit": "b", "benchmarks": {"Set5": on}}
    done = [{"row": "IIRN", "model": "iirn_x4", **facts}, {"row": "small", "model": "small_x4", **facts}]
    lines = to_markdown({"done": done, "bicubic": {"x4": {"Set5": on}}}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert [row[5] for row in (cells[0], *cells[2:])] == ["Set5, printed", "", "32.99/0.91", ""]


@pytest.mark.parametrize("plan", sorted(PLANS))
def test_the_table_in_the_pages_is_made_of_the_results_beside_it(plan: str) -> None:
    measured = Path(__file__).parents[1] / "docs" / "measured"
    gathered = json.loads((measured / f"{plan}.json").read_text())
    assert gathered["plan"] == plan
    assert (measured / f"{plan}.md").read_text() == to_markdown(gathered)


def test_mistakes_end_with_a_line(tmp_path, capsys) -> None:
    images = pictures(tmp_path / "images", 1, side=64)
    there = ["--to", str(tmp_path / "runs"), "--val", str(images)]
    assert trials.main(["claims", "--data", str(tmp_path / "none"), *there]) == 2
    assert "trials.py: " in capsys.readouterr().err
    nowhere = ["--data", str(images), *there, "--benchmarks", str(tmp_path / "nowhere")]
    assert trials.main(["claims", *nowhere]) == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert trials.main(["claims", *nowhere[:-1], str(tmp_path / "empty")]) == 2
    assert "empty" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()  # nothing was trained
    (tmp_path / "runs" / "pace").mkdir(parents=True)
    (tmp_path / "runs" / "pace" / "x4.json").write_text('{"IIRN": 1.0, "srcnn_x4": 0.1}')
    short = ["table1", "--minutes", "0.0001", "--only", "srcnn"]
    assert trials.main([*short, "--data", str(images), *there]) == 2
    assert "no step fits into 0.0001 minutes" in capsys.readouterr().err
