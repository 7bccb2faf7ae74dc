"""The commands and their options."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from invertible_rescaling._version import __version__
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.images import MAX_PIXELS
from invertible_rescaling.pipeline.console import Console
from invertible_rescaling.pipeline.networks import ModelChoice, device_of, load
from invertible_rescaling.pipeline.paths import plan
from invertible_rescaling.pipeline.rescale import check_tile
from invertible_rescaling.pipeline.run import process
from invertible_rescaling.pipeline.tasks import RescaleOptions

__all__: list[str] = []  # for the command line alone

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Shrink pictures so that they can be brought back.",
    epilog=(
        "A small picture is called LR, for low resolution. It looks like any other, and carries in its "
        "pixels what 'upscale' needs; store it without loss (png, tiff, webp)."
    ),
)

_DOWN = "invertible-rescaling downscale photos small  |  ... a.jpg b.heic small --model iirn_x2"
_UP = "invertible-rescaling upscale small restored  |  ... small/a.png restored/a.tif"

Format = Literal["png", "tiff", "webp", "jpg"]
Paths = Annotated[
    list[Path], typer.Argument(metavar="IN... OUT", help="Files and folders, and where what is made goes.")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="One of those that 'models' lists; iirn_x4 by default, or what LR says. x4 is the factor.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(metavar="W", help="DEFAULT, V1, ..., a checkpoint or its address.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Tile = Annotated[
    str, typer.Option(metavar="PIXELS", help="auto, none, or pixels of the large picture: a side of a tile.")
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Pictures at a time; as many as cores by default.", show_default=False),
]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="png by default, or by OUT's suffix.", show_default=False)
]
Quality = Annotated[
    int | None, typer.Option(min=1, max=100, help="Of jpg, and of webp, which is lossless without.")
]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="To bring back to, if not as LR says.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Skip what was made already of the same file with the same model.")
]
KeepSuffix = Annotated[bool, typer.Option("--keep-suffix", help="Make a.jpg.png, not a.png, of a.jpg.")]
MaxPixels = Annotated[int, typer.Option(min=1, metavar="N", help="Refuse larger pictures.")]
Strip = Annotated[
    bool, typer.Option("--strip", help="Leave out EXIF, XMP and text, which tell of people and places.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what failed.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog=f"Examples:  {_DOWN}")
def downscale(
    paths: Paths,
    model: Model = None,
    weights: WeightsOption = None,
    device: Device = "auto",
    tile: Tile = "auto",
    jobs: Jobs = None,
    kind: FormatOption = None,
    quality: Quality = None,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Let LR be stored as jpg or lossy webp all the same.")
    ] = False,
    force: Force = False,
    resume: Resume = False,
    keep_suffix: KeepSuffix = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    strip: Strip = False,
    quiet: Quiet = False,
) -> int:
    """Shrink pictures to small ones (LR), which carry what 'upscale' needs to bring them back."""
    found = plan(*_inputs_and_output(paths), kind, keep_suffix)
    choice = ModelChoice(model, weights, device_of(device))
    options = RescaleOptions(
        "downscale", choice, found.kind, quality, _tile(tile), None, force, resume, max_pixels, strip
    )
    console = Console.of(quiet)
    _check_quality(options)
    if options.lossy:
        lost = (
            f"{found.kind} is lossy: it changes the pixels of LR, and with them the detail that the model "
            "hid there, so that what comes back is often no better than bicubic; jpg has no alpha and 8 bits"
        )
        if not allow_lossy:
            raise ConfigError(f"{lost}. Use png, or webp without --quality, or pass --allow-lossy")
        console.note(lost)
    # What is wrong with these is wrong for all pictures.
    check_tile(load(choice).model.scale, options.tile, "--tile")
    return process(found, options, jobs, console)


@app.command(epilog=f"Examples:  {_UP}")
def upscale(
    paths: Paths,
    model: Model = None,
    weights: WeightsOption = None,
    size: Size = None,
    device: Device = "auto",
    tile: Tile = "auto",
    jobs: Jobs = None,
    kind: FormatOption = None,
    quality: Quality = None,
    force: Force = False,
    resume: Resume = False,
    keep_suffix: KeepSuffix = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    strip: Strip = False,
    quiet: Quiet = False,
) -> int:
    """Restore small pictures (LR) to their original size, by what each says of itself; options override."""
    found = plan(*_inputs_and_output(paths), kind, keep_suffix)
    choice = ModelChoice(model, weights, device_of(device))
    options = RescaleOptions(
        "upscale", choice, found.kind, quality, _tile(tile), _size(size), force, resume, max_pixels, strip
    )
    _check_quality(options)
    if model is not None or weights is not None:
        check_tile(load(choice).model.scale, options.tile, "--tile")
    return process(found, options, jobs, Console.of(quiet))


def _inputs_and_output(paths: list[Path]) -> tuple[list[Path], Path]:
    if len(paths) < 2:
        raise ConfigError(f"what is made of {paths[0]} needs a place: give IN and OUT")
    return paths[:-1], paths[-1]


def _check_quality(options: RescaleOptions) -> None:
    if options.quality is not None and options.kind not in ("jpg", "webp"):
        raise ConfigError(f"--quality is for jpg and webp; {options.kind} is lossless")


def _tile(wanted: str) -> int | None:
    if wanted in ("auto", "none"):
        return None if wanted == "auto" else 0
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) < 1:
        raise ConfigError(f"--tile takes auto, none or a number of pixels, got {wanted!r}")
    return int(wanted)


def _size(wanted: str | None) -> tuple[int, int] | None:
    if wanted is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", wanted)
    if not found:
        raise ConfigError(f"--size takes width and height, as in 1920x1080, got {wanted!r}")
    return int(found[2]), int(found[1])


@app.command()
def roundtrip(
    paths: Annotated[list[Path], typer.Argument(metavar="IN...", help="Files and folders.")],
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For the side-by-side picture; roundtrip.png here by default."),
    ] = None,
    model: Model = None,
    weights: WeightsOption = None,
    device: Device = "auto",
    tile: Tile = "auto",
    rows: Annotated[int, typer.Option(min=0, help="Of the picture, at most; 0 for none.")] = 8,
    force: Force = False,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> int:
    """Shrink and bring back: PSNR and SSIM of ours and of bicubic, sizes in bytes, a side-by-side picture."""
    from invertible_rescaling.cli.roundtrip import roundtrip as compare_all

    target = picture or Path("roundtrip.png")
    network = load(ModelChoice(model, weights, device_of(device)))
    return compare_all(paths, target, network, _tile(tile), rows, force, max_pixels, Console.of())


@app.command()
def models(json: Json = False) -> int:
    """List the models: parameters, trained weights, their licence and PSNR (RGB, dB) on benchmarks."""
    from invertible_rescaling.cli import info as about

    found, console = about.models(), Console.of()
    if json:
        return _tell_all(about.as_json(found), console)
    columns = list(dict.fromkeys(key for row in found for key in row))
    table = [[_cell(row.get(key, "")) for key in columns] for row in found]
    widths = [max(map(len, cells)) for cells in zip(columns, *table, strict=True)]
    heads = [f"{key}, dB" if key in about.BENCHMARKS else key for key in columns]
    widths = [max(width, len(head)) for width, head in zip(widths, heads, strict=True)]
    for line in (heads, *table):
        console.print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _tell_all(lines: str, console: Console) -> int:
    for line in lines.splitlines():
        console.print(line)
    return 0


def _cell(value: str | int | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A picture or a checkpoint.")],
    json: Json = False,
) -> int:
    """Say what a picture or a checkpoint carries: what made it, of what size, and whether it was edited."""
    from invertible_rescaling.cli import info as about

    found, console = about.facts_of(path), Console.of()
    if json:
        return _tell_all(about.as_json(found), console)
    for key, value in found.items():
        console.print(f"{key}: {value}")
    return 0


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def train(context: typer.Context) -> int:
    """Train a model on a folder of images; train --help lists the options."""
    from invertible_rescaling.training.launch import launch

    return launch("invertible-rescaling train", context.args)
