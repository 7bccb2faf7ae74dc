"""Printing of results, notes, problems and progress."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from invertible_rescaling.errors import printable

__all__: list[str] = []  # for the command line alone


@dataclass(frozen=True)
class Console:
    """The streams that results, notes and problems are printed to.

    Attributes:
        out: standard output.
        err: standard error, and the progress bar where that is a terminal.
        quiet: print nothing but what failed.
    """

    out: rich.console.Console
    err: rich.console.Console
    quiet: bool = False

    @classmethod
    def of(cls, quiet: bool = False) -> "Console":
        """On the process's own streams."""
        plain = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
        return cls(rich.console.Console(**plain), rich.console.Console(stderr=True, **plain), quiet)  # type: ignore[arg-type]

    def print(self, line: str) -> None:
        """Print a result, in one line."""
        if not self.quiet:
            self.out.print(printable(line))

    def note(self, line: str) -> None:
        """Print a note."""
        if not self.quiet:
            self.err.print(f"note: {printable(line)}")

    def error(self, line: str) -> None:
        """Print a problem, in one line."""
        self.err.print(f"error: {printable(' '.join(line.split()))}")

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[float], None]]:
        """A bar with the time that is left, on a terminal; yield what sets how many are done, parts counted.

        For a single one there is a bar as soon as a part of it is done.
        """
        if self.quiet or not self.err.is_terminal:
            yield lambda _done: None
            return
        left = TimeRemainingColumn(elapsed_when_finished=True)
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), left)
        # Results printed meanwhile stay above the bar on a terminal, and go into their file elsewhere.
        bar = Progress(*columns, console=self.err, redirect_stdout=self.out.is_terminal)
        task = bar.add_task(what, total=total)

        def show(done: float) -> None:
            if not bar.live.is_started and done < total:
                bar.start()
            bar.update(task, completed=done)

        try:
            if total > 1:
                bar.start()
            yield show
        finally:
            if bar.live.is_started:
                bar.stop()
