"""Options that several commands share: same spelling, same meaning, everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dehaze.errors import UsageError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Format = Literal["same", "png", "jpg", "webp", "avif", "tiff"]
Metadata = Literal["keep", "strip"]
BitDepth = Literal["auto", "8", "16"]

MODEL, PICTURE, TALK = "Model", "Picture files", "Talk"
"""Panels of --help."""

OutputOption = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="PATH", help="Where to write.", show_default=False),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="NAME|PATH|HF",
        envvar="DEHAZE_MODEL",
        show_default=False,
        rich_help_panel=MODEL,
        help="A name from 'dehaze models list', a .safetensors file, or hf://owner/repo/file@revision. "
        "Without it: the bundled default.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "-d",
        "--device",
        metavar="auto|cpu|cuda[:N]|mps",
        envvar="DEHAZE_DEVICE",
        rich_help_panel=MODEL,
        help="Where to compute. One that is asked for and absent is an error.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        rich_help_panel=MODEL,
        help="Number format of the network. auto: fp32 on CPU, half on CUDA where the model allows it.",
    ),
]
ResolutionOption = Annotated[
    str,
    typer.Option(
        "--resolution",
        metavar="auto|full|N",
        rich_help_panel=MODEL,
        help="Long side in pixels that the network looks at; its answer is transferred to full resolution. "
        "auto: the size the model was trained for.",
    ),
]
TileOption = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|off|N",
        rich_help_panel=MODEL,
        help="Tile size in pixels; only with --resolution full.",
    ),
]
StrengthOption = Annotated[
    float,
    typer.Option(
        "--strength", min=0, max=1, rich_help_panel=MODEL, help="1: the model's answer, 0: the input."
    ),
]
CompareOption = Annotated[
    bool,
    typer.Option("--compare", help="Also write a before/after picture, <output>_compare, beside the output."),
]
OverwriteOption = Annotated[
    bool, typer.Option("-y", "--overwrite", help="Replace outputs that exist, even the input itself.")
]
FormatOption = Annotated[
    Format, typer.Option("-f", "--format", rich_help_panel=PICTURE, help="Format of the output.")
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        "--quality",
        min=1,
        max=100,
        rich_help_panel=PICTURE,
        show_default=False,
        help="Quality of JPEG, WebP and AVIF. Without it: visually lossless.",
    ),
]
MetadataOption = Annotated[
    Metadata,
    typer.Option(
        "--metadata",
        rich_help_panel=PICTURE,
        help="EXIF, XMP and resolution; the colour profile always stays.",
    ),
]
BitDepthOption = Annotated[
    BitDepth, typer.Option("--bit-depth", rich_help_panel=PICTURE, help="Bits a channel. auto: the input's.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", rich_help_panel=TALK, help="JSON alone on stdout, one object a line.")
]
QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", rich_help_panel=TALK, help="Only warnings and errors.")
]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", rich_help_panel=TALK, help="Say more.")]
NoProgressOption = Annotated[
    bool,
    typer.Option("--no-progress", rich_help_panel=TALK, help="No progress bar (none without a terminal)."),
]
DebugOption = Annotated[
    bool, typer.Option("--debug", rich_help_panel=TALK, help="Errors with their traceback.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would be done, do nothing.")
]
FailFastOption = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first input that fails.")]


def resolution(text: str) -> int | Literal["auto", "full"]:
    """Read the value of --resolution.

    Raises:
        UsageError: Neither `auto`, `full` nor a number of at least 1.
    """
    match text:
        case "auto" | "full":
            return text
    return _pixels(text, "--resolution", "auto, full")


def tile(text: str) -> int | Literal["auto", "off"]:
    """Read the value of --tile.

    Raises:
        UsageError: Neither `auto`, `off` nor a number of at least 1.
    """
    match text:
        case "auto" | "off":
            return text
    return _pixels(text, "--tile", "auto, off")


def bit_depth(value: BitDepth) -> Literal["auto", 8, 16]:
    """Read the value of --bit-depth."""
    return "auto" if value == "auto" else 16 if value == "16" else 8


def _pixels(text: str, flag: str, words: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"{flag} is '{text}': expected {words} or a number of pixels")
    return int(text)
