"""A run over many pictures: how many at a time, what is told of it, and the exit code."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.paths import FileTask, Plan
from invertible_rescaling.pipeline.tasks import FileOutcome, RescaleOptions
from invertible_rescaling.pipeline.workers import outcomes

__all__: list[str] = []  # for the command line alone

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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = jobs or (cores if device == "cpu" else 1)
    used = max(1, min(wanted, tasks))
    return used, max(1, min(cores, torch.get_num_threads()) // used)


def process(plan: Plan, options: RescaleOptions, jobs: int | None, console: Console) -> int:
    """Do all that is planned; return 0, 1 if anything failed, or 130 if interrupted.

    Raises:
        ConfigError: there is nothing to do.
    """

    def work(tasks: Sequence[FileTask]) -> Iterator[FileOutcome]:
        count, threads = share(jobs, len(tasks), options.choice.device)
        return outcomes(tasks, options, count, threads)

    return oversee(plan, options.direction, work, console)


def oversee(
    plan: Plan, what: str, work: Callable[[Sequence[FileTask]], Iterator[FileOutcome]], console: Console
) -> int:
    """Let ``work`` do all that is planned, tell what comes of it, and return as :func:`process` does.

    Raises:
        ConfigError: there is nothing to do.
    """
    if not plan.tasks and not plan.failures:
        raise ConfigError("no pictures were found; known are .png, .jpg, .webp, .tif and the like")
    started = time.perf_counter()
    failures = [f"{path}: {why}" for path, why in plan.failures]
    tasks = plan.tasks
    plan.remove_leftovers()
    counts: Counter[str] = Counter()
    notes: dict[str, list[Path]] = defaultdict(list)
    interrupted = False
    try:
        with console.progress(what, len(tasks)) as advance:
            for outcome in work(tasks):
                _tally(outcome, counts, failures, notes)
                advance()
    except KeyboardInterrupt:
        interrupted = True
        plan.remove_leftovers()
    for note, paths in notes.items():
        console.note(f"{note} ({_listed(paths)})")
    for failure in failures:
        console.error(failure)
    seconds = time.perf_counter() - started
    parts = [f"{counts['done']} done"]
    parts += [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    parts += [f"{len(failures)} failed"] if failures else []
    rate = f", {counts['done'] / seconds:.1f} a second" if counts["done"] > 1 else ""
    left = f"; {plan.others} other files left out" if plan.others else ""
    console.print(f"{', '.join(parts)} in {seconds:.1f} s{rate}{left}")
    if interrupted:
        console.error("interrupted; what is done is whole, and --resume goes on from there")
        return INTERRUPTED
    return 1 if failures else 0


def _tally(
    outcome: FileOutcome, counts: Counter[str], failures: list[str], notes: dict[str, list[Path]]
) -> None:
    counts[outcome.status] += 1
    if outcome.status == "failed":
        failures.append(f"{outcome.source}: {outcome.problem}")
    for note in outcome.notes:
        notes[note].append(outcome.source)


def _listed(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(str, paths[:3]))
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"
