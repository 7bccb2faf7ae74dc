r"""Shrink or bring back pictures on a cluster: what the command line does, spread over machines by Ray Data.

    pip install "invertible_rescaling[cli,ray]"
    python examples/rescale_with_ray.py downscale photos lr --workers 2
    python examples/rescale_with_ray.py upscale lr restored --address auto --report restored.jsonl

Without --address a cluster of this machine alone is begun, and ended with the run. On a real one every
machine needs this library, and all paths (IN, OUT, --weights) must be the same files everywhere: shared
storage.

Each worker loads the model once and does one picture after the other, just as the command line would: with
as many threads a picture the files are the same, byte for byte. A picture that fails is reported and the
others are done. If a worker dies, Ray starts another, which goes on with what the first had not done; a
picture that takes three workers with it is reported as failed. The exit code is 0 if all went well, 1 if a
picture failed, 2 if nothing was begun.
"""

import argparse
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import torch

from invertible_rescaling import RescalingError
from invertible_rescaling.cli.entry import own_stderr, signals
from invertible_rescaling.errors import ConfigError, first_line
from invertible_rescaling.images import MAX_PIXELS
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.networks import Choice, load
from invertible_rescaling.pipeline.paths import Plan, plan
from invertible_rescaling.pipeline.rescale import check_tile
from invertible_rescaling.pipeline.run import clean, oversee
from invertible_rescaling.pipeline.tasks import Options, Outcome, Task, perform

TRIES = 3  # workers that a picture may take with it
BLOCK = 8  # pictures that a worker is given at a time, at most
STALLED = 4 * 3600  # seconds without a block done: more than eight of the largest pictures take on one thread


@dataclass(frozen=True)
class Workers:
    """How many, where, and what each may use.

    Attributes:
        address: of the cluster; ``None`` for one of this machine alone.
        count: as many as fit by default.
        threads: of each.
        gpus: of each, on a GPU.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    address: str | None
    count: int | None
    threads: int
    gpus: float
    device: str


class Rescale:
    """A worker: rows of tasks in, rows of outcomes out. ``perform`` keeps its model between pictures."""

    def __init__(self, options: Options, threads: int, tries: Any) -> None:
        torch.set_num_threads(threads)
        self.options, self.tries = options, tries

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        task = Task(Path(os.fsdecode(row["source"])), Path(os.fsdecode(row["target"])))
        if ray.get(self.tries.begin.remote(row["index"])) > TRIES:
            why = f"its worker process died {TRIES} times (out of memory? try fewer --workers)"
            return self.told(row, Outcome(task.source, "failed", why))
        # A target that was not there before the run, and now is, was made by a worker that died after it.
        options = replace(self.options, resume=True) if row["fresh"] else self.options
        try:
            outcome = perform(task, options)
        except Exception as error:
            outcome = Outcome(task.source, "failed", f"{type(error).__name__}: {error}")
        self.tries.end.remote(row["index"])  # comes before the next begin
        if row["fresh"] and outcome.status == "skipped":
            outcome = replace(outcome, status="done")
        return self.told(row, outcome)

    @staticmethod
    def told(row: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
        """As a row. JSON also holds names that are no valid text, which Arrow's strings do not."""
        return {"index": row["index"], "outcome": json.dumps(facts(outcome))}


class Tries:
    """How often each picture was begun and not ended, kept where it outlives the workers."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def begin(self, index: int) -> int:
        """Count a try and return how many there were, this one included."""
        self.counts[index] = self.counts.get(index, 0) + 1
        return self.counts[index]

    def end(self, index: int) -> None:
        """Forget it: what comes after it in its block may yet bring it back."""
        self.counts.pop(index, None)


def outcomes(
    tasks: Sequence[Task], options: Options, workers: Workers, console: Console
) -> Iterator[Outcome]:
    """Perform all tasks on the cluster and yield what comes of each, in the order they are done."""
    left = dict(enumerate(tasks))
    problem = "Ray lost it; its logs say more, and --resume tries it again"
    try:
        with cluster(workers):
            count, device = fit(workers, len(tasks), console)
            options = replace(options, choice=replace(options.choice, device=device))
            for row in rescaled(tasks, options, workers, count, device):
                task, found = left.pop(row["index"]), json.loads(row["outcome"])
                yield Outcome(task.source, found["status"], found["problem"], tuple(found["notes"]))
    except RescalingError:
        raise
    except Exception as error:  # of Ray, which has many
        lines = str(error).strip().splitlines() or [""]
        problem = f"Ray gave up: {type(error).__name__}: {lines[-1]}; --resume goes on"
    finally:
        clean(tasks)  # workers that were killed may have left files half-written
    for task in left.values():
        yield Outcome(task.source, "failed", problem)


def rescaled(
    tasks: Sequence[Task], options: Options, workers: Workers, count: int, device: str
) -> Iterator[dict[str, Any]]:
    """The rows that :class:`Rescale` makes of all tasks."""
    import ray.data

    # Ray Data restarts workers that died and tries again what they had, without end; Tries puts an end to it.
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # no number of failures stops the run
    context.max_consecutive_actor_init_deaths = count + TRIES
    context.execution_no_progress_timeout_s = STALLED
    context.enable_progress_bars = False
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=True
    )
    lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    tries = ray.remote(Tries).options(**lasting).remote()
    rows = [
        {
            "index": index,
            "source": os.fsencode(task.source),
            "target": os.fsencode(task.target),
            "fresh": not task.target.exists(),
        }
        for index, task in enumerate(tasks)
    ]
    size = max(1, min(BLOCK, len(rows) // (4 * count)))
    found = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map(
        Rescale,  # type: ignore[arg-type]  # a class is welcome, as the documentation of map says
        fn_constructor_args=(options, workers.threads, tries),
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=workers.threads,
        num_gpus=workers.gpus if device == "cuda" else 0,
    )
    return iter(found.iter_rows())


@contextlib.contextmanager
def cluster(workers: Workers) -> Iterator[None]:
    """Join a cluster, or begin one, which ends with the context; what Ray has to tell goes into its logs."""
    address = workers.address or "local"
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if workers.address is None:
        cpus = (workers.count or 1) * workers.threads
        common |= {"num_cpus": max(cpus, cores()), "include_dashboard": False, "object_store_memory": 2**27}
    try:
        knock(address)
        import ray.data

        log = logging.getLogger("ray.data")
        for handler in list(log.handlers):
            if isinstance(handler, logging.StreamHandler):
                log.removeHandler(handler)
        ray.init(address, **common)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no cluster at {address} ({error}); does it run, and does it want RAY_AUTH_MODE=token?"
        ) from error
    try:
        with signals():  # after Ray, which takes them too
            yield
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Try the door, where there is one: Ray goes on trying for minutes.

    Raises:
        OSError: nobody is there.
    """
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def fit(workers: Workers, tasks: int, console: Console) -> tuple[int, str]:
    """How many workers, and on which device.

    Raises:
        ConfigError: not one fits on this machine.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    device = workers.device
    if device == "auto":
        device = "cuda" if any(node.get("GPU", 0) >= workers.gpus for node in nodes) else "cpu"
    wanted = {"CPU": float(workers.threads)} | ({"GPU": workers.gpus} if device == "cuda" else {})
    room = sum(int(min(node.get(kind, 0) // need for kind, need in wanted.items())) for node in nodes)
    if not room:
        needs = " and ".join(f"{need:g} {kind}s" for kind, need in wanted.items())
        if workers.address is None:
            raise ConfigError(
                f"a worker needs {needs}, which this machine has not; see --threads and --device"
            )
        console.note(
            f"a worker needs {needs}, which no machine of the cluster has; waiting for one that does"
        )
    return max(1, min(workers.count or room, tasks)), device


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def recorded(found: Iterator[Outcome], todo: Plan, report: TextIO | None) -> Iterator[Outcome]:
    """Pass outcomes on, each with a line in the report."""
    targets = {pair.source: str(pair.target) for pair in todo.pairs}
    for path, why in todo.failures if report else ():
        print(json.dumps(line(Outcome(path, "failed", why), None)), file=report)
    for outcome in found:
        if report:
            print(json.dumps(line(outcome, targets[outcome.source])), file=report, flush=True)
        yield outcome


def facts(outcome: Outcome) -> dict[str, Any]:
    """What JSON is made of."""
    return {"status": outcome.status, "problem": outcome.problem, "notes": outcome.notes}


def line(outcome: Outcome, target: str | None) -> dict[str, Any]:
    """Of the report."""
    return {"source": str(outcome.source), "target": target} | facts(outcome)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself ends with code 2 on a mistake in it."""
    parser = argparse.ArgumentParser(
        prog="rescale_with_ray.py", description="Shrink or bring back pictures on a cluster."
    )
    add = parser.add_argument
    add("direction", choices=("downscale", "upscale"))
    add("paths", nargs="+", type=Path, metavar="IN", help="files and folders; the last is OUT, a folder")
    add("--address", help="of a cluster, or auto; by default one of this machine alone is begun")
    add("--workers", "--jobs", type=at_least(1), metavar="N", help="(default: as many as fit)")
    add("--threads", type=at_least(1), default=1, metavar="N", help="and cores, of each (default: 1)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    add(
        "--gpus",
        type=float,
        default=1.0,
        metavar="G",
        help="of each on cuda: 0.5 is half of one (default: 1)",
    )
    add("--model", metavar="NAME", help="(default: iirn_x4, or what LR says it was made with)")
    add("--weights", metavar="W", help="DEFAULT, V1, ..., a checkpoint or its address")
    add("--format", choices=("png", "tiff", "webp"), default="png", help="(default: png)")
    add(
        "--tile",
        type=tile,
        metavar="PIXELS",
        help="auto, none, or pixels of the large picture (default: auto)",
    )
    add("--force", action="store_true", help="overwrite files that exist")
    add("--resume", action="store_true", help="skip what was made already of the same file and model")
    add("--keep-suffix", action="store_true", help="make a.jpg.png, not a.png, of a.jpg")
    add("--max-pixels", type=at_least(1), default=MAX_PIXELS, metavar="N", help="refuse larger pictures")
    add("--report", type=Path, metavar="FILE", help="write a line of JSON for each picture as it is done")
    add("--quiet", action="store_true", help="say nothing but what failed")
    options = parser.parse_args(argv)
    if len(options.paths) < 2:
        parser.error(f"what is made of {options.paths[0]} needs a place: give IN and OUT")
    if not 0 < options.gpus < float("inf"):
        parser.error(f"--gpus must be over 0, got {options.gpus}")
    return options


def at_least(least: int) -> Callable[[str], int]:
    """A parser of integers of at least so much."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return integer


def tile(text: str) -> int | None:
    """Of --tile: ``None`` for auto, 0 for none."""
    return None if text == "auto" else 0 if text == "none" else at_least(1)(text)


def run(given: argparse.Namespace) -> int:
    """Do what was asked for and return the exit code.

    Raises:
        RescalingError: it cannot be begun.
        OSError: the report cannot be written.
    """
    *inputs, output = (path.absolute() for path in given.paths)  # workers have other working folders
    weights = given.weights
    if weights is not None and os.path.isfile(os.path.expanduser(weights)):
        weights = os.path.abspath(os.path.expanduser(weights))
    choice = Choice(given.model, weights)
    todo = plan(inputs, output, given.format, given.keep_suffix)
    options = Options(
        given.direction,
        choice,
        todo.kind,
        tile=given.tile,
        force=given.force,
        resume=given.resume,
        max_pixels=given.max_pixels,
    )
    if given.direction == "downscale" or given.model or weights:
        # What is wrong with these is wrong for all pictures.
        check_tile(load(choice).model.scale, options.tile, "--tile")
    workers = Workers(given.address, given.workers, given.threads, given.gpus, given.device)
    console = Console.of(given.quiet)
    with given.report.open("w") if given.report else contextlib.nullcontext() as report:

        def work(tasks: Sequence[Task]) -> Iterator[Outcome]:
            return recorded(outcomes(tasks, options, workers, console), todo, report)

        return oversee(todo, given.direction, work, console)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code: 0 all done, 1 some failed, 2 nothing begun, 130 interrupted."""
    given = parse(argv)
    if find_spec("ray") is None:
        return say("Ray Data is missing: pip install 'invertible_rescaling[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it prints to stdout that workers died
    try:
        with own_stderr():
            return run(given)
    except (RescalingError, OSError) as error:
        return say(first_line(error))
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def say(problem: str) -> int:
    """Why nothing was begun."""
    print(f"rescale_with_ray.py: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
