"""Printing of results, notes, problems and progress."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__: list[str] = []  # for the command line alone


def printable(text: str) -> str:
    """One line without what names of files and their metadata may hold beside text.

    Line ends, escapes that would reach the terminal, and bytes that are of no encoding come as escapes.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar with the time that is left, on a terminal; yield what moves it on by one."""
        if self.quiet or not self.err.is_terminal or total < 2:
            yield lambda: None
            return
        left = TimeRemainingColumn(elapsed_when_finished=True)
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), left)
        with Progress(*columns, console=self.err) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
