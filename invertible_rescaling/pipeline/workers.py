"""Tasks on several processes, each with a model of its own; one that dies takes one picture with it.

Processes rather than threads: as fast, as far as a busy machine can tell (``docs/cli.md`` has the figures),
and a decoder that crashes does not take the run with it.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.pipeline.paths import FileTask
from invertible_rescaling.pipeline.tasks import FileOutcome, RescaleOptions, rescale_file

__all__: list[str] = []  # for the command line alone

_UNSTARTED = (
    ". A script that calls the command line is a file, and calls it under `if __name__ == '__main__':`; "
    "--jobs 1 needs no worker process"
)


def outcomes(
    tasks: Sequence[FileTask],
    options: RescaleOptions,
    jobs: int,
    threads: int,
    progress: Callable[[float], None] | None = None,
) -> Iterator[FileOutcome]:
    """Perform all tasks and yield what comes of each, in the order they are done.

    Args:
        tasks: what to do.
        options: of the run.
        jobs: processes; with one, the work is done in this process.
        threads: of each.
        progress: with one process, called with the share of a large picture that is done, 0 to 1.

    Raises:
        ConfigError: no worker process could start.
    """
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for task in tasks:
                yield rescale_file(task, options, progress)
        finally:
            torch.set_num_threads(before)
        return
    waiting, started = iter(tasks), False
    workers = [_Worker(options, threads) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.give(next(waiting, None))
        while busy := {worker.connection: worker for worker in workers if worker.task}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                outcome = worker.take()
                if outcome is None:
                    started = True
                    continue
                if worker.dead and not started:
                    raise ConfigError(f"no worker process could start: {outcome.problem}{_UNSTARTED}")
                yield outcome
                if worker.dead:
                    workers.remove(worker)
                    worker.stop()
                    worker = _Worker(options, threads)
                    workers.append(worker)
                worker.give(next(waiting, None))
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process, the task it has, and the way to it. The end of the connection is its order to stop."""

    def __init__(self, options: RescaleOptions, threads: int) -> None:
        # spawn: torch's threads do not survive a fork, nor does a GPU
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, options, threads), daemon=True)
        self.task: FileTask | None = None
        self.dead = False
        self.process.start()
        theirs.close()

    def give(self, task: FileTask | None) -> None:
        self.task = task
        if task is not None:
            with contextlib.suppress(OSError):  # it has died, which take() will say
                self.connection.send(task)

    def take(self) -> FileOutcome | None:
        """What came of its task; ``None`` where it tells that it has started."""
        task = self.task
        if task is None:
            raise RuntimeError("take() without a task: give() comes first")
        try:
            outcome: FileOutcome | None = self.connection.recv()
        except (EOFError, OSError):
            self.dead = True
            self.process.join()
            how = f"its worker process ended with code {self.process.exitcode}"
            killed = " (out of memory? try --jobs 1)" if self.process.exitcode == -signal.SIGKILL else ""
            outcome = FileOutcome(task.source, "failed", how + killed)
        if outcome is not None:
            self.task = None
        return outcome

    def stop(self) -> None:
        """At once, whatever it does; what it had begun to write is removed by the caller."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        self.process.close()


def _serve(connection: Connection, options: RescaleOptions, threads: int) -> None:
    """A worker's life: tasks in, outcomes out, until the other end is closed or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of them; the parent sees to it
    torch.set_num_threads(threads)
    answer: Any = None  # it has started
    while True:
        try:
            connection.send(answer)
            task = connection.recv()
        except (EOFError, OSError):
            return
        answer = rescale_file(task, options)
