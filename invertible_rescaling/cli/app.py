"""The commands and their options.

What a command does is imported when it is run, and torch with it: help, completion and most misuses are told
at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from invertible_rescaling._version import __version__

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
Engine = Annotated[
    str,
    typer.Option(help="auto (the fastest here, once found out), torch, cudagraphs, onnxruntime or openvino."),
]
Tile = Annotated[
    str, typer.Option(metavar="PIXELS", help="auto, none, or pixels of the large picture: a side of a tile.")
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Pictures at a time; as many as cores by default.", show_default=False),
]
_BY_SUFFIX = "png by default, or by OUT's suffix"
StoredFormat = Annotated[
    Literal["png", "tiff", "webp", "jpg"] | None,
    typer.Option(
        "--format", help=f"{_BY_SUFFIX}; jpg by weights for it, small_x4's if no --model.", show_default=False
    ),
]
RestoredFormat = Annotated[
    Literal["png", "tiff", "webp", "jpg", "original"] | None,
    typer.Option("--format", help=f"{_BY_SUFFIX}; original: as what LR was made of.", show_default=False),
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
MaxPixels = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Refuse larger pictures.", show_default="16384 x 16384"),
]
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
    engine: Engine = "torch",
    tile: Tile = "auto",
    jobs: Jobs = None,
    kind: StoredFormat = None,
    quality: Quality = None,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Let LR be stored as jpg or lossy webp all the same.")
    ] = False,
    force: Force = False,
    resume: Resume = False,
    keep_suffix: KeepSuffix = False,
    max_pixels: MaxPixels = None,
    strip: Strip = False,
    quiet: Quiet = False,
) -> int:
    """Shrink pictures to small ones (LR), which carry what 'upscale' needs to bring them back."""
    from invertible_rescaling.cli.rescaling import rescale

    return rescale(
        "downscale",
        paths,
        keep_suffix,
        jobs,
        quiet,
        model=model,
        weights=weights,
        device=device,
        engine=engine,
        tile=tile,
        kind=kind,
        quality=quality,
        allow_lossy=allow_lossy,
        force=force,
        resume=resume,
        max_pixels=max_pixels,
        strip=strip,
    )


@app.command(epilog=f"Examples:  {_UP}")
def upscale(
    paths: Paths,
    model: Model = None,
    weights: WeightsOption = None,
    size: Size = None,
    device: Device = "auto",
    engine: Engine = "torch",
    tile: Tile = "auto",
    jobs: Jobs = None,
    kind: RestoredFormat = None,
    quality: Quality = None,
    force: Force = False,
    resume: Resume = False,
    keep_suffix: KeepSuffix = False,
    max_pixels: MaxPixels = None,
    strip: Strip = False,
    quiet: Quiet = False,
) -> int:
    """Restore small pictures (LR) to their original size, by what each says of itself; options override."""
    from invertible_rescaling.cli.rescaling import rescale

    return rescale(
        "upscale",
        paths,
        keep_suffix,
        jobs,
        quiet,
        model=model,
        weights=weights,
        device=device,
        engine=engine,
        tile=tile,
        kind=kind,
        quality=quality,
        size=size,
        force=force,
        resume=resume,
        max_pixels=max_pixels,
        strip=strip,
    )


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
    engine: Engine = "torch",
    tile: Tile = "auto",
    through: Annotated[
        str | None,
        typer.Option(
            metavar="CODEC:QUALITY", help="Store LR with loss between: jpg:85, webp:80, avif:70, jxl:90."
        ),
    ] = None,
    codecs: Annotated[
        bool,
        typer.Option("--codecs", help="Compare with jpg, webp, avif and jxl of the original at LR's bytes."),
    ] = False,
    rows: Annotated[int, typer.Option(min=0, help="Of the picture, at most; 0 for none.")] = 8,
    force: Force = False,
    max_pixels: MaxPixels = None,
) -> int:
    """Shrink and bring back: PSNR and SSIM of ours and of bicubic, bytes, a side-by-side picture."""
    from invertible_rescaling.cli.roundtrip import roundtrip as compare_all

    return compare_all(
        paths,
        picture or Path("roundtrip.png"),
        model,
        weights,
        device,
        engine,
        tile,
        through,
        codecs,
        rows,
        force,
        max_pixels,
    )


@app.command()
def models(json: Json = False) -> int:
    """List the models: parameters, trained weights, their licence and PSNR (RGB, dB) on benchmarks."""
    from invertible_rescaling.cli.info import tell_models

    return tell_models(json)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A picture or a checkpoint.")],
    json: Json = False,
) -> int:
    """Say what a picture or a checkpoint carries: what made it, of what size, and whether it was edited."""
    from invertible_rescaling.cli.info import tell_facts

    return tell_facts(path, json)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def train(context: typer.Context) -> int:
    """Train a model on a folder of images; train --help lists the options."""
    from invertible_rescaling.training.launch import launch

    return launch("invertible-rescaling train", context.args)
