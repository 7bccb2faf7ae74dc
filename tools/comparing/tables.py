"""What came of trials, as Markdown."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from evaluation.paper import PAPER
from evaluation.report import align

HEAD = (
    *("what differs", "parameters", "multiply-adds of 40x40 each way, M", "steps", "core minutes"),
    *("val PSNR, RGB, of each seed", "mean", "over the first row", "LR against bicubic"),
)


def to_markdown(gathered: dict[str, Any]) -> str:
    """A table for each scale, the plan's rows in their order, and where they were trained.

    It has columns for benchmarks where bicubic was measured on some.
    """
    done = gathered["done"]
    if "bicubic" in gathered:
        return to_benchmark_table(done, gathered["bicubic"])
    parts = []
    for scale in sorted({run["scale"] for run in done}):
        runs = [run for run in done if run["scale"] == scale]
        rows = [[run for run in runs if run["row"] == row] for row in _rows(runs)]
        parts.append("\n".join([f"x{scale}:", "", *align([HEAD, *(_line(row, rows[0]) for row in rows)])]))
    return "\n\n".join([*parts, _places(done)]) + "\n"


def to_benchmark_table(done: Sequence[dict[str, Any]], bicubic: dict[str, Any]) -> str:
    """A line for each system, with the mean of its seeds, and one for bicubic, at each scale.

    Where Set5 is among the benchmarks, what the paper prints for it stands before them.
    """
    parts = []
    for scale in sorted({run["scale"] for run in done}):
        known = bicubic[f"x{scale}"]
        sets = list(known)
        runs = [run for run in done if run["scale"] == scale]
        y, lr = (f"{what}: {' / '.join(sets)}" for what in ("Y", "LR against bicubic"))
        printed = ["Set5, printed"] if "Set5" in sets else []
        cells = [["system", "parameters", "steps", "core minutes", "seeds", *printed, *sets, y, lr]]
        cells.append(["bicubic", *[""] * (4 + len(printed)), *_on_benchmarks([known], sets)])
        for name in _rows(runs):
            row = [run for run in runs if run["row"] == name]
            facts = [f"{row[0]['parameters']:,}", _range([run["steps"] for run in row], ",d")]
            facts += [_range([run["core_minutes"] for run in row], ".1f"), str(len(row))]
            if printed:
                facts.append(PAPER[row[0]["model"]].rgb[0] if row[0]["model"] in PAPER else "")
            cells.append([name, *facts, *_on_benchmarks([run.get("benchmarks", {}) for run in row], sets)])
        parts.append("\n".join(align(cells)))
    return "\n\n".join([*parts, _places(done)]) + "\n"


def _on_benchmarks(seeds: Sequence[dict[str, Any]], sets: Sequence[str]) -> list[str]:
    """PSNR and SSIM in RGB on each, how far seeds are off in PSNR, then PSNR on Y and that of LR."""
    found = [[seed[name] for seed in seeds if name in seed] for name in sets]
    rgb = [_psnr_and_ssim(figures) if figures else "-" for figures in found]
    y = [_mean(figures, "psnr_y", ".2f") for figures in found]
    lr = [_mean(figures, "psnr_lr", ".1f") for figures in found]
    alike = "same" in lr and set(lr) <= {"same", "-"}
    return [*rgb, " / ".join(y), "same" if alike else " / ".join(lr)]


def _psnr_and_ssim(seeds: Sequence[dict[str, Any]]) -> str:
    values = [figures["psnr_rgb"] for figures in seeds]
    mean, ssim = fmean(values), fmean(figures["ssim_rgb"] for figures in seeds)
    off = max(abs(value - mean) for value in values)
    return f"{mean:.2f}{f' ±{off:.2f}' if len(values) > 1 else ''}/{ssim:.3f}"


def _mean(seeds: Sequence[dict[str, Any]], name: str, form: str) -> str:
    values = [figures[name] for figures in seeds]
    if not values:
        return "-"
    return "same" if None in values else format(fmean(values), form)


def _places(done: Sequence[dict[str, Any]]) -> str:
    """Each machine, and the commits of what was trained there."""
    commits: dict[str, dict[str, None]] = {}
    for run in done:
        commits.setdefault(run["machine"], {})[run["commit"]] = None
    return " ".join(
        f"{machine}; commit{'s' * (len(of) > 1)} {', '.join(of)}." for machine, of in commits.items()
    )


def _rows(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Names in the order of the plan; linear codes, which others start from, come last."""
    names = dict.fromkeys(run["row"] for run in runs)
    return sorted(names, key=lambda name: name.startswith("linear code"))


def _line(row: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]]) -> list[str]:
    """Over the first row: the mean of what each seed has more than the first row's with that seed."""
    known = {run["seed"]: run["val"]["psnr_rgb"] for run in first}
    found = {run["seed"]: run["val"]["psnr_rgb"] for run in row}
    more = [value - known[seed] for seed, value in found.items() if seed in known]
    return [
        row[0]["row"],
        f"{row[0]['parameters']:,}",
        f"{row[0]['multiply_adds'] / 1e6:.1f}",
        _range([run["steps"] for run in row], ",d"),
        _range([run["core_minutes"] for run in row], ".1f"),
        " / ".join(f"{found[seed]:.2f}" for seed in sorted(found)),
        f"{fmean(found.values()):.2f}",
        f"{round(fmean(more), 2) + 0.0:+.2f}" if more and row is not first else "",
        _range([run["val"]["lr_psnr_rgb"] for run in row], ".1f"),
    ]


def _range(values: Sequence[Any], form: str) -> str:
    if None in values:  # PSNR of equal pictures
        return "same"
    least, most = format(min(values), form), format(max(values), form)
    return least if least == most else f"{least} to {most}"
