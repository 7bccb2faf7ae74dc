"""A run over many pictures: how many at a time, what is told of it, and the exit code."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from invertible_rescaling._process import cores_here, memory_here
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.paths import FileTask, Plan
from invertible_rescaling.pipeline.tasks import FileOutcome, RescaleOptions
from invertible_rescaling.pipeline.workers import outcomes

__all__: list[str] = []  # for the command line alone

_WORKER = 1_250_000_000  # bytes that a process takes with iirn_x4 and a picture that is not cut into tiles
_ALIKE = 3  # failures of one cause are told one by one up to so many
_LITTLE = 100_000  # bytes of files
INTERRUPTED = 130  # what shells make of a process that Ctrl-C ends


def share(jobs: int | None, tasks: int, device: str) -> tuple[int, int]:
    """How many pictures at a time, and the threads of each.

    It goes by all tasks of a run and not by those that are left, since other numbers of threads may round
    differently, and what is resumed is to be the same as what was not interrupted. ``OMP_NUM_THREADS`` bounds
    them, as it does for torch.

    Example:
        >>> from invertible_rescaling.pipeline.run import share
        >>> share(2, 1, "cpu")[0], share(None, 10, "cuda")[0]
        (1, 1)
    """
    cores = cores_here()
    wanted = jobs or (min(cores, memory_here() // _WORKER or 1) if device == "cpu" else 1)
    used = max(1, min(wanted, tasks))
    return used, max(1, min(cores, torch.get_num_threads()) // used)


def process(plan: Plan, options: RescaleOptions, jobs: int | None, console: Console) -> int:
    """Do all that is planned; return 0, 1 if anything failed, or 130 if interrupted.

    Raises:
        ConfigError: there is nothing to do.
    """

    def work(tasks: Sequence[FileTask], within: Callable[[float], None]) -> Iterator[FileOutcome]:
        wanted = jobs or (1 if _is_little(tasks) else None)
        count, threads = share(wanted, len(tasks), options.choice.device)
        return outcomes(tasks, options, count, threads, within)

    return oversee(plan, options.direction, work, console)


def _is_little(tasks: Sequence[FileTask]) -> bool:
    """Return whether the files are so small that processes of their own would take longer to start."""
    return sum(task.source.stat().st_size for task in tasks if task.source.is_file()) < _LITTLE


def oversee(
    plan: Plan,
    what: str,
    work: Callable[[Sequence[FileTask], Callable[[float], None]], Iterator[FileOutcome]],
    console: Console,
) -> int:
    """Let ``work`` do all that is planned, tell what comes of it, and return as :func:`process` does.

    Beside the tasks ``work`` is given what it may call with the share of a picture that is done, 0 to 1.

    Raises:
        ConfigError: there is nothing to do.
    """
    if not plan.tasks and not plan.failures:
        raise ConfigError(nothing_found(plan))
    started = time.perf_counter()
    failures: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path, why in plan.failures:
        failures[str(path)].append((path, why))
    targets = {task.source: task.target for task in plan.tasks}
    tasks = plan.tasks
    plan.remove_leftovers()
    counts: Counter[str] = Counter()
    made: list[Path] = []
    notes: dict[str, list[Path]] = defaultdict(list)
    interrupted = False
    try:
        with console.progress(what, len(tasks)) as show:
            for outcome in work(tasks, lambda share: show(counts.total() + share)):
                counts[outcome.status] += 1
                show(counts.total())
                if outcome.status == "done":
                    made.append(targets[outcome.source])
                if outcome.status == "failed":
                    cause = _cause(outcome, targets[outcome.source])
                    failures[cause].append((outcome.source, outcome.problem))
                for note in outcome.notes:
                    notes[note].append(outcome.source)
    except KeyboardInterrupt:
        interrupted = True
        plan.remove_leftovers()
    for note, paths in (notes | _left_out(plan)).items():
        console.note(f"{note} ({_listed(paths)})")
    for cause, those in failures.items():
        if len(those) > _ALIKE:
            console.error(f"{cause} ({_listed([path for path, _ in those])})")
        else:
            for path, why in those:
                console.error(f"{path}: {why}")
    failed = sum(map(len, failures.values()))
    seconds = time.perf_counter() - started
    parts = [f"{counts['done']} done"]
    parts += [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    parts += [f"{failed} failed"] if failed else []
    rate = _rate(counts["done"], seconds)
    left = f"; {plan.others} other files left out" if plan.others else ""
    console.print(f"{', '.join(parts)} in {seconds:.1f} s{rate}{_written(made)}{left}")
    if interrupted:
        console.error("interrupted; what is done is whole, and --resume goes on from there")
        return INTERRUPTED
    return 1 if failures else 0


def nothing_found(plan: Plan) -> str:
    """Say that there is nothing to do, and what there is instead."""
    unread = f" ({len(plan.unread)} are of formats that are not read)" if plan.unread else ""
    return f"no pictures were found{unread}; known are .png, .jpg, .webp, .tif, .heic and the like"


def _left_out(plan: Plan) -> dict[str, list[Path]]:
    """Notes on what in folders is not done, and on which files."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in plan.unread:
        found[f"{path.suffix.lower()} files are not read, and are left out"].append(path)
    if plan.links:
        found["links to folders are not followed"] += plan.links
    return found


def _written(made: Sequence[Path]) -> str:
    """How much was written, and where."""
    sizes = [path.stat().st_size for path in made if path.is_file()]
    if not sizes:
        return ""
    where = made[0] if len(made) == 1 else os.path.commonpath([path.parent for path in made]) or "."
    return f": {sum(sizes):,} bytes in {where}"


def _cause(outcome: FileOutcome, target: Path) -> str:
    """What many failures have in common if it lies in where they are written to; else the picture's name."""
    if f"({target.parent})" in outcome.problem:
        return outcome.problem
    cause = outcome.problem.replace(str(target), "its output")
    return cause if cause != outcome.problem else str(outcome.source)


def _rate(done: int, seconds: float) -> str:
    if done < 2:
        return ""
    return f", {done / seconds:.1f} a second" if done >= seconds else f", {seconds / done:.1f} s each"


def _listed(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(str, paths[:3]))
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"
