"""Shrink or bring back pictures on a cluster: what the command line does, as a Ray task for each picture.

    pip install "invertible_rescaling[cli,ray]"
    python examples/rescale_with_ray.py downscale photos small
    python examples/rescale_with_ray.py upscale small restored --address auto --report restored.jsonl

Without --address a cluster of this machine alone is begun, and ended with the run. On a real one every
machine needs this library, and all paths (IN, OUT, --weights) must be the same files everywhere: shared
storage. With as many threads a picture the files are those of the command line, byte for byte.

A picture that fails is reported and the others are done; one that takes three workers with it counts as
failed. The exit code is 0 if all went well, 1 if a picture failed, 2 if nothing was begun.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from invertible_rescaling import RescalingError
from invertible_rescaling.errors import ConfigError, first_line
from invertible_rescaling.pipeline import (
    FileOutcome,
    FileTask,
    ModelChoice,
    RescaleOptions,
    plan,
    rescale_file,
)

TRIES = 3  # workers that a picture may take with it


def rescale(task: FileTask, options: RescaleOptions, threads: int, fresh: bool) -> FileOutcome:
    """Do one picture in a worker; ``fresh`` is what had no target before the run."""
    torch.set_num_threads(threads)
    # A worker may have died after it wrote the file; the next then finds it made.
    outcome = rescale_file(task, replace(options, resume=True) if fresh else options)
    return replace(outcome, status="done") if fresh and outcome.status == "skipped" else outcome


def outcomes(
    tasks: Sequence[FileTask], options: RescaleOptions, given: argparse.Namespace
) -> Iterator[FileOutcome]:
    """Do all tasks on the cluster; yield what comes of each, in the order they are done."""
    import ray
    from ray.exceptions import RayError, WorkerCrashedError

    on_gpu = options.choice.device == "cuda"
    needs = {"num_cpus": given.threads, "num_gpus": given.gpus if on_gpu else 0, "max_retries": TRIES - 1}
    remote: Any = ray.remote(rescale).options(**needs)
    left, running = deque(tasks), dict[Any, FileTask]()
    cores: float = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    at_once = given.workers or max(1, 2 * int(cores) // given.threads)
    while left or running:
        while left and len(running) < at_once:
            task = left.popleft()
            running[remote.remote(task, options, given.threads, not task.target.exists())] = task
        (done, *_), _ = ray.wait(list(running))
        task = running.pop(done)
        try:
            yield ray.get(done)
        except WorkerCrashedError:
            why = f"its worker process died {TRIES} times (out of memory? try fewer --workers)"
            yield FileOutcome(task.source, "failed", why)
        except RayError as error:
            yield FileOutcome(task.source, "failed", f"Ray: {first_line(error)}")


@contextlib.contextmanager
def cluster(given: argparse.Namespace) -> Iterator[None]:
    """Join a cluster, or begin one of this machine, which ends with the block."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if given.address is None:
        cpus = (given.workers or 1) * given.threads
        quiet |= {"num_cpus": max(cpus, os.cpu_count() or 1), "include_dashboard": False}
    try:
        ray.init(given.address or "local", **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no cluster at {given.address or 'this machine'} ({first_line(error)})") from error
    try:
        yield
    finally:
        ray.shutdown()


def run(given: argparse.Namespace) -> int:
    """Do what was asked for; return 0, or 1 if a picture failed.

    Raises:
        RescalingError, OSError: it cannot be begun.
    """
    *inputs, output = (path.absolute() for path in given.paths)  # workers have other working folders
    weights = os.path.abspath(given.weights) if os.path.isfile(given.weights or "") else given.weights
    todo = plan(inputs, output, given.format)
    options = RescaleOptions(
        given.direction,
        ModelChoice(given.model, weights, given.device),
        force=given.force,
        resume=given.resume,
    )
    if given.direction == "downscale" or given.model or weights:
        options.choice.check()  # what is wrong with it is wrong for all pictures
    started, counts = time.perf_counter(), Counter[str]()
    todo.remove_leftovers()
    with given.report.open("w") if given.report else contextlib.nullcontext() as report, cluster(given):
        unreadable = (FileOutcome(path, "failed", why) for path, why in todo.failures)
        for outcome in chain(unreadable, outcomes(todo.tasks, options, given)):
            counts[outcome.status] += 1
            if outcome.problem:
                print(f"error: {outcome.source}: {outcome.problem}", file=sys.stderr, flush=True)
            if report:
                print(json.dumps(asdict(outcome) | {"source": str(outcome.source)}), file=report, flush=True)
    todo.remove_leftovers()  # of workers that were killed
    told = [f"{counts[status]} {status}" for status in ("done", "skipped", "failed") if counts[status]]
    print(f"{', '.join(told) or 'nothing to do'} in {time.perf_counter() - started:.1f} s")
    return 1 if counts["failed"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code: 0 all done, 1 some failed, 2 nothing begun, 130 interrupted."""
    given = parse(argv)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it prints to stdout that workers died
    try:
        if find_spec("ray") is None:
            raise ConfigError("Ray is missing: pip install 'invertible_rescaling[ray]'")
        return run(given)
    except (RescalingError, OSError) as error:
        print(f"rescale_with_ray.py: {first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; what is done is whole, and --resume goes on from there", file=sys.stderr)
        return 130


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself ends with code 2 on a mistake in it."""
    parser = argparse.ArgumentParser(
        prog="rescale_with_ray.py", description="Shrink or bring back pictures on a cluster."
    )
    add = parser.add_argument
    add("direction", choices=("downscale", "upscale"))
    add("paths", nargs="+", type=Path, metavar="IN", help="files and folders; the last is OUT, a folder")
    add("--address", help="of a cluster, or auto; by default one of this machine alone is begun")
    add("--workers", type=int, metavar="N", help="pictures at a time (default: as many as fit)")
    add("--threads", type=int, default=1, metavar="N", help="and cores, of each (default: 1)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    add("--gpus", type=float, default=1.0, metavar="G", help="of each on cuda (default: 1)")
    add("--model", metavar="NAME", help="(default: iirn_x4, or what LR says it was made with)")
    add("--weights", metavar="W", help="DEFAULT, V1, ..., a checkpoint or its address")
    add("--format", choices=("png", "tiff", "webp"), default="png", help="(default: png)")
    add("--force", action="store_true", help="overwrite files that exist")
    add("--resume", action="store_true", help="skip what was made already of the same file and model")
    add("--report", type=Path, metavar="FILE", help="write a line of JSON for each picture as it is done")
    given = parser.parse_args(argv)
    if len(given.paths) < 2:
        parser.error(f"what is made of {given.paths[0]} needs a place: give IN and OUT")
    if min(given.threads, 1 if given.workers is None else given.workers) < 1 or given.gpus <= 0:
        parser.error("--workers and --threads must be at least 1, and --gpus over 0")
    return given


if __name__ == "__main__":
    sys.exit(main())
