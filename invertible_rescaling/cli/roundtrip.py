"""The command ``roundtrip`` over files and folders."""

from collections.abc import Sequence
from pathlib import Path

from invertible_rescaling.cli.report import (
    CODECS,
    Comparison,
    codecs_at,
    codecs_row,
    draw,
    head,
    mean_row,
    there_and_back,
)
from invertible_rescaling.cli.rescaling import tile_of
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.images import MAX_PIXELS
from invertible_rescaling.images.lossy import Lossy
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.networks import ModelChoice, check_engine, device_of, jpeg_choice, load
from invertible_rescaling.pipeline.paths import look
from invertible_rescaling.pipeline.rescale import check_tile
from invertible_rescaling.pipeline.run import INTERRUPTED, nothing_found
from invertible_rescaling.pipeline.tasks import problem_of

__all__: list[str] = []  # for the command line alone


def roundtrip(
    inputs: Sequence[Path],
    target: Path,
    model: str | None,
    weights: str | None,
    device: str,
    engine: str,
    tile: str,
    through: str | None,
    codecs: bool,
    rows: int,
    force: bool,
    max_pixels: int | None,
) -> int:
    """Compare every picture with what comes back; return 0, 1 if any failed, or 130 if interrupted.

    The parameters are the command's.

    Raises:
        ConfigError: the picture's file exists, or there is nothing to do.
        OSError: it cannot be written.
    """
    if rows and target.suffix.lower() != ".png":
        raise ConfigError(f"the side-by-side picture is a PNG file; {target} is none by its name")
    if rows and target.exists() and not force:
        raise ConfigError(f"{target} exists; pass --force to overwrite it, --picture FILE or --rows 0")
    choice = ModelChoice(model, weights, device_of(device), check_engine(engine))
    codec = None if through is None else Lossy.parse(through)
    if codec is not None and codec.kind == "jpg":
        robust = jpeg_choice(choice, codec.quality)
        choice = choice if robust is None else robust.choice
    choice.check()
    network, side = load(choice), tile_of(tile)
    check_tile(network.model.scale, side, "--tile")
    plan, console = look(inputs), Console.of()
    if not plan.tasks and not plan.failures:
        raise ConfigError(nothing_found(plan))
    for path, why in plan.failures:
        console.error(f"{path}: {why}")
    shown: list[Comparison] = []
    others: list[dict[str, float]] = []
    sums: dict[str, list[float]] = {"ours": [], "bicubic": []}
    failed = len(plan.failures)
    try:
        with console.progress("roundtrip", len(plan.tasks)) as show:
            for number, source in enumerate((task.source for task in plan.tasks), 1):
                try:
                    found = there_and_back(network, source, max_pixels or MAX_PIXELS, side, codec)
                except Exception as error:  # whatever a package raises, the others are to be compared
                    console.error(f"{source}: {problem_of(error)}")
                    failed += 1
                    continue
                finally:
                    show(number)
                for line in (*(head(through) if not sums["ours"] else ()), found.row()):
                    console.print(line)
                if codecs:
                    others.append(codecs_at(found))
                    console.print(codecs_row(others[-1], "the original itself in as many bytes"))
                for note in found.original.notes:
                    console.note(f"{note} ({source})")
                for who, values in sums.items():
                    values.append(found.psnr[who])
                if len(shown) < rows:
                    shown.append(found)
    except KeyboardInterrupt:
        console.error("interrupted")
        return INTERRUPTED
    if len(sums["ours"]) > 1:
        console.print(mean_row(sums))
        whole = {kind for kind in CODECS if all(kind in figures for figures in others)}
        if others and whole:
            means = {kind: sum(figures[kind] for figures in others) / len(others) for kind in whole}
            console.print(codecs_row(means, "mean of the codecs that had all"))
    if shown:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, draw(shown))
        console.print(f"wrote {target}")
    return 1 if failed else 0
