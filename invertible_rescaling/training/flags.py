"""Parts of the training program's command line: flags of fields, durations, parts of models."""

import argparse
import json
import re
from typing import Any

from invertible_rescaling.errors import RescalingError

__all__: list[str] = []  # for TrainingConfig alone


class OptionError(RescalingError, ValueError):
    """Options that do not fit together."""


def duration(text: str) -> float:
    """Turn ``600``, ``90s``, ``10m`` or ``1.5h`` into seconds.

    Raises:
        ArgumentTypeError: anything else, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 600, 90s, 10m or 1.5h")
    return seconds


def flag(group: str, text: str, **more: Any) -> dict[str, Any]:
    """What ``--help`` says of a field, and how."""
    return {"group": group, "help": text.replace("%", "%%"), **more}


def model_part(text: str | None) -> str | dict[str, Any] | None:
    """A sub-network or latent as a model takes it: a name, or a dictionary with the name and options.

    Values are read as JSON where they are some, and as text otherwise.
    """
    name, colon, rest = (text or "").partition(":")
    if not colon:
        return text
    part: dict[str, Any] = {}
    for item in rest.split(","):
        option, equals, value = item.partition("=")
        if not (name and option.isidentifier() and equals) or option == "name" or option in part:
            raise OptionError(
                f"{text!r}: options follow a name as in wavelet:correction=none,wavelet=haar, "
                f"each once; {item!r} is none"
            )
        try:
            part[option] = json.loads(value)
        except ValueError:
            part[option] = value
    return {"name": name, **part}
