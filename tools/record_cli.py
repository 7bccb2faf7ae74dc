r"""Record what the README shows of the command line: a session at a terminal, and the picture it makes.

    python tools/record_cli.py --out docs/images
    python tools/record_cli.py --out /tmp --images photographs

Every command is run, on copies of a few photographs that scikit-image ships or of those in ``--images``, and
what it prints stands in ``cli.svg`` as it came. ``cli_roundtrip.png`` is the side-by-side picture of
``roundtrip``.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from invertible_rescaling import RescalingError
from invertible_rescaling.images import find_images, write_image
from invertible_rescaling.training.data import photograph

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
COMMANDS = (
    "downscale photos small",
    "upscale small restored",
    "roundtrip photos --picture difference.png",
    "info small/{first}.png",
)
WIDTH = 112  # characters


def main(argv: Sequence[str] | None = None) -> int:
    """Record; return 0, or 2 after an error."""
    options = parse(argv)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            first = lay_out(options.images, Path(place, "photos"))
            commands = [command.format(first=first) for command in COMMANDS]
            drawn = draw([(command, run(command, Path(place))) for command in commands])
            (options.out / "cli.svg").write_text(drawn, encoding="utf-8")
            copyfile(Path(place, "difference.png"), options.out / "cli_roundtrip.png")
    except (RescalingError, OSError) as error:
        print(f"record_cli.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out / 'cli.svg'} and {options.out / 'cli_roundtrip.png'}")
    return 0


def lay_out(images: Path | None, folder: Path) -> str:
    """Put photographs into a folder, and return the first one's name without its suffix."""
    folder.mkdir()
    if images is None:
        for name in PHOTOGRAPHS:
            write_image(folder / f"{name}.png", photograph(name))
    else:
        for path in find_images(images):
            copyfile(path, folder / path.name)
    return find_images(folder)[0].stem


def run(command: str, place: Path) -> str:
    """What the command line prints, on both streams.

    Raises:
        OSError: it ends with another code than 0.
    """
    arguments = [sys.executable, "-m", "invertible_rescaling.cli", *command.split()]
    done = subprocess.run(arguments, cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise OSError(f"'{command}' ended with code {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def draw(session: Sequence[tuple[str, str]]) -> str:
    """Commands and what they printed, as SVG that needs nothing from elsewhere."""
    with tempfile.TemporaryFile("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, highlight=False)
        for command, printed in session:
            console.print(Text.assemble(("$ ", "green"), (f"invertible-rescaling {command}", "bold")))
            console.print(Text(printed))
        drawn = console.export_svg(title="invertible-rescaling", theme=DIMMED_MONOKAI)
    return re.sub(r"@font-face \{.*?\}\n?", "", drawn, flags=re.DOTALL)  # which is on a server


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="record_cli.py", description="Record the command line.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where cli.svg goes")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs; scikit-image's by default")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
