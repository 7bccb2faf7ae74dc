"""From the arguments to an exit code: errors of one line each, interruptions that leave nothing behind."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

import typer

from invertible_rescaling.cli.app import app
from invertible_rescaling.errors import RescalingError, printable

__all__: list[str] = []  # for the command line alone


# Typer raises exceptions of the click that it brings, or of the one beside it, depending on its version.
_Usage: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class _Ended(KeyboardInterrupt):
    """A signal that asks the process to end, as Ctrl-C does."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; see :func:`invertible_rescaling.cli.main`."""
    command = typer.main.get_command(app)
    try:
        with signals(), own_stderr(), any_text():
            code = command.main(
                None if argv is None else list(argv), prog_name="invertible-rescaling", standalone_mode=False
            )
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted", 130)
    except _Usage as error:
        context = getattr(error, "ctx", None)
        if not error.format_message():  # type: ignore[attr-defined]  # no arguments at all: help has been printed
            return 2
        hint = f"; see {context.command_path} --help" if context else ""
        return _say(error.format_message().rstrip(".") + hint, 2)  # type: ignore[attr-defined]
    except RescalingError as error:
        return _say(str(error), 2)
    except BrokenPipeError:  # whoever read has had enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _say(f"{error.strerror or error} ({error.filename})" if error.filename else str(error), 1)
    return code if isinstance(code, int) else 0


def _say(problem: str, code: int) -> int:
    print(f"error: {printable(' '.join(problem.split()))}", file=sys.stderr)  # noqa: T201
    return code


@contextlib.contextmanager
def own_stderr() -> Iterator[None]:
    """Keep standard error for this program: libtiff prints there what it finds wrong with a file.

    Python writes to a copy of it meanwhile; worker processes inherit the one that leads nowhere.
    """
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError):  # replaced, or closed
        yield
        return
    before, sys.stderr = (
        sys.stderr,
        open(  # noqa: SIM115
            os.dup(number), "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors, buffering=1
        ),
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(sys.stderr.fileno(), number)
        sys.stderr.close()
        sys.stderr = before


@contextlib.contextmanager
def any_text() -> Iterator[None]:
    """Let standard output take letters that its encoding lacks, as escapes, as standard error does anyway."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):  # replaced, or closed
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended

    named = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What is ignored stays ignored: nohup lets a run go on after its terminal is closed.
    wanted = [number for number in named if signal.getsignal(number) is not signal.SIG_IGN]
    try:
        before = {number: signal.signal(number, end) for number in wanted}
    except ValueError:  # not in the main thread, where signals do not come
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
