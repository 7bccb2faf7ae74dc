"""The training program's command line: one flag for each field of its configuration."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from invertible_rescaling.training.config import TrainingConfig

__all__ = ["add_arguments", "from_arguments", "parse_options"]


def parse_options(argv: Sequence[str] | None = None, prog: str | None = None) -> TrainingConfig:
    """Parse the command line; argparse ends the program on a misuse, with exit code 2."""
    parser = _Parser(
        prog=prog,
        description="Train a rescaler or a super-resolver on any folder of images; run again, it resumes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_arguments(parser)
    return from_arguments(parser.parse_args(argv))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; the usage of so many flags would hide it."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command line one flag for each field of :class:`TrainingConfig`."""
    kinds, groups = get_type_hints(TrainingConfig, include_extras=True), {}
    for field in fields(TrainingConfig):
        kind, given = get_args(kinds[field.name])
        kind = next((one for one in get_args(kind) if one is not NoneType), kind) if _optional(kind) else kind
        how = dict(given)
        group = how.pop("group")
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        names = [f"--{field.name.replace('_', '-')}", *filter(None, [how.pop("also", None)])]
        if kind is bool:
            how["action"] = "store_true"
        elif get_origin(kind) is Literal:
            how["choices"] = get_args(kind)
        else:
            how.setdefault("type", get_args(kind)[0] if get_origin(kind) is tuple else kind)
        groups[group].add_argument(*names, default=field.default, **how)


def _optional(kind: Any) -> bool:
    return NoneType in get_args(kind)


def from_arguments(arguments: argparse.Namespace) -> TrainingConfig:
    """Return the configuration that a command line with these flags asks for."""
    values: dict[str, Any] = {field.name: getattr(arguments, field.name) for field in fields(TrainingConfig)}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return TrainingConfig(**values)
