"""Table 1 of Mo & Chen 2021: what the paper prints of its systems, and what was measured of them here."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.measuring import Benchmark
from evaluation.methods import Row
from evaluation.report import Report, align, convention, describe_benchmark, format_figures
from invertible_rescaling.weights import weights_of
from provenance import stamp

SETS = ("Set5", "Set14", "BSD100", "Urban100")
COLUMNS = ("RGB printed", "RGB PSNR/SSIM", "Y printed", "Y PSNR/SSIM", "LR PSNR")


@dataclass(frozen=True)
class System:
    """A row of the paper.

    Attributes:
        title: as the paper calls it.
        rgb: PSNR/SSIM on :data:`SETS`, RGB, as Mo & Chen print them.
        y: PSNR/SSIM on luma as the system's own authors print them (Xiao et al. 2020), or nothing.
    """

    title: str
    rgb: tuple[str, ...]
    y: tuple[str, ...] = ("", "", "", "")


PAPER = {
    "srcnn_x4": System("SRCNN", ("28.43/0.81", "25.51/0.71", "25.43/0.67", "22.76/0.68")),
    "srresnet_x4": System("SRResNet", ("30.23/0.85", "26.75/0.75", "26.22/0.70", "24.57/0.76")),
    "srgan_x4": System("SRGAN", ("27.94/0.78", "24.75/0.67", "24.21/0.61", "22.76/0.69")),
    "esrgan_x4": System("ESRGAN", ("30.64/0.86", "27.06/0.76", "26.41/0.71", "25.28/0.78")),
    "edsr_x4": System("EDSR", ("30.22/0.85", "26.76/0.75", "26.23/0.70", "24.51/0.76")),
    "irn_x4": System(
        "IRN",
        ("33.11/0.91", "30.04/0.86", "29.76/0.86", "28.60/0.88"),
        ("36.19/.9451", "32.67/.9015", "31.64/.8826", "31.41/.9157"),
    ),
    "iirn_x4": System("IIRN", ("32.99/0.91", "30.12/0.87", "29.77/0.86", "28.91/0.89")),
}


BICUBIC = System("bicubic", ("", "", "", ""), ("28.42", "26.00", "25.96", "23.14"))


def shipped() -> list[str]:
    """The paper's systems of which there are weights, as ``--model`` takes them."""
    return [f"{name}:DEFAULT" for name in PAPER if len(weights_of(name))]


def to_paper(report: Report) -> str:
    """The convention, and for each benchmark a table and a line.

    Models that are none of the paper's systems, or not trained, follow at the end of each.
    """
    said = [
        *convention(report.task),
        "Printed: in RGB by Mo & Chen 2021, on Y by Xiao et al. 2020, after far longer training on DIV2K. "
        "They do not state how they round and crop.",
        "What has not been trained here has no figures of its own.",
    ]
    for benchmark in report.benchmarks:
        said += ["", f"## {benchmark.name}", "", *align(_table(report.rows, benchmark)), ""]
        said.append(describe_benchmark(benchmark))
    return "\n".join([*said, "", stamp(str(report.task.device))])


def _table(rows: Sequence[Row], benchmark: Benchmark) -> list[list[str]]:
    cells = [["system", "measured here", "trained for", *COLUMNS]]
    cells += [_line(BICUBIC.title, row, BICUBIC, benchmark) for row in rows if row.kind == "bicubic"]
    for name, system in PAPER.items():
        trained = [row for row in rows if row.origin.system == name and _is_trained(row)]
        cells += [_line(system.title, row, system, benchmark) for row in trained]
        if not trained:
            cells.append(_line(system.title, None, system, benchmark))
    others = [row for row in rows if not (row.origin.system in PAPER and _is_trained(row))]
    return cells + [_line("", row, None, benchmark) for row in others if row.kind != "bicubic"]


def _is_trained(row: Row) -> bool:
    return row.kind == "checkpoint" or "weights" in row.facts


def _line(title: str, row: Row | None, system: System | None, benchmark: Benchmark) -> list[str]:
    """One line of the table; without a row, what is printed alone."""
    printed = ("", "")
    if system is not None and benchmark.name in SETS:
        index = SETS.index(benchmark.name)
        printed = (system.rgb[index], system.y[index])
    if row is None:
        return [title, "-", "not trained", printed[0], "-", printed[1], "-", "-"]
    rgb, y, lr = format_figures(benchmark.figures.get(row.name))
    return [title, row.name, row.origin.budget, printed[0], rgb, printed[1], y, lr]
