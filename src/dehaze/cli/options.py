"""Options that several commands share: same spelling, same meaning, everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, Literal, get_type_hints

import typer

from dehaze.cli import output
from dehaze.errors import UsageError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Format = Literal["same", "png", "jpg", "webp", "avif", "tiff"]
Metadata = Literal["keep", "strip"]
BitDepth = Literal["auto", "8", "16"]

MODEL, PICTURE, MESSAGES = "Model", "Picture files", "Messages"
"""Panels of --help."""


def flag(*names: str, help: str, panel: str | None = None) -> Any:
    """Declare a switch: no `<bool>` in --help, no `--no-` twin."""
    return typer.Option(*names, metavar="", help=help, rich_help_panel=panel)


ModelOption = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="NAME|PATH|hf://...",
        envvar="DEHAZE_MODEL",
        show_default=False,
        rich_help_panel=MODEL,
        help="A name from 'dehaze models list', a .safetensors file, an exported .onnx network or "
        "hf://owner/repo/file@revision. "
        "Without it: the model in the box.",
    ),
]


def _device(also: str = "") -> Any:
    return typer.Option(
        "-d",
        "--device",
        metavar="auto|cpu|cuda[:N]|mps",
        envvar="DEHAZE_DEVICE",
        rich_help_panel=MODEL,
        help=f"Where to compute. {also}One that is asked for and absent is an error.",
    )


DeviceOption = Annotated[str, _device()]
PicturesDeviceOption = Annotated[
    str, _device("'auto': a GPU if there is one; a few photos are done sooner on the CPU. ")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="auto|fp32|bf16|fp16",
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
        help="Long side, in pixels, of the copy the network looks at; what it does is transferred to all "
        "pixels. auto: the size the model was trained for.",
    ),
]
TileOption = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|off|N",
        rich_help_panel=MODEL,
        help="Side of the tiles in pixels, with --resolution full.",
    ),
]
StrengthOption = Annotated[
    float,
    typer.Option(
        "--strength",
        min=0,
        max=1,
        rich_help_panel=MODEL,
        metavar="X",
        help="1: the model's answer, 0: the input.",
    ),
]
CompareOption = Annotated[
    bool, flag("--compare", help="Also write a before/after picture, <stem>_compare<ext>, beside the output.")
]
OverwriteOption = Annotated[
    bool, flag("-y", "--overwrite", help="Replace outputs that exist, even the input itself.")
]
ReplaceOption = Annotated[bool, flag("-y", "--overwrite", help="Replace outputs that exist.")]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "-f",
        "--format",
        metavar="same|png|jpg|webp|avif|tiff",
        rich_help_panel=PICTURE,
        show_default=False,
        help="Format of the output; same: the input's. Without it: what the output's name says.",
    ),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        "--quality",
        metavar="N",
        min=1,
        max=100,
        rich_help_panel=PICTURE,
        show_default=False,
        help="Quality of JPEG, WebP, AVIF and HEIC. Without it: 95, 90, 85 and 90.",
    ),
]
MetadataOption = Annotated[
    Metadata,
    typer.Option(
        "--metadata",
        metavar="keep|strip",
        rich_help_panel=PICTURE,
        help="strip: no EXIF, XMP or comments; the colour profile stays.",
    ),
]
BitDepthOption = Annotated[
    BitDepth,
    typer.Option(
        "--bit-depth",
        metavar="auto|8|16",
        rich_help_panel=PICTURE,
        help="Bits a channel. auto: the input's, where the format can hold them.",
    ),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        metavar="N",
        rich_help_panel=PICTURE,
        show_default=False,
        help="Refuse pictures of more pixels than this. Without it: 500 million.",
    ),
]
JsonOption = Annotated[bool, flag("--json", panel=MESSAGES, help="JSON alone on stdout, one object a line.")]
QuietOption = Annotated[bool, flag("-q", "--quiet", panel=MESSAGES, help="Only warnings and errors.")]
VerboseOption = Annotated[bool, flag("-v", "--verbose", panel=MESSAGES, help="Say more.")]
NoProgressOption = Annotated[
    bool, flag("--no-progress", panel=MESSAGES, help="No progress bar (there is none without a terminal).")
]
DebugOption = Annotated[bool, flag("--debug", panel=MESSAGES, help="Show errors with their traceback.")]
DryRunOption = Annotated[
    bool, flag("--dry-run", help="Check the request, say what would be done, do nothing.")
]
FailFastOption = Annotated[bool, flag("--fail-fast", help="Stop at the first input that fails.")]


@dataclass(frozen=True)
class Messages:
    """What a command says, and how."""

    as_json: JsonOption = False
    quiet: QuietOption = False
    verbose: VerboseOption = False
    no_progress: NoProgressOption = False
    debug: DebugOption = False

    def start(self) -> output.Output:
        """Begin the command's output."""
        return output.start(**asdict(self))


@dataclass(frozen=True)
class Inference:
    """Which model clears pictures, and how it is run."""

    model: ModelOption = None
    device: PicturesDeviceOption = "auto"
    precision: PrecisionOption = "auto"
    resolution: ResolutionOption = "auto"
    tile: TileOption = "auto"
    strength: StrengthOption = 1.0

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `dehaze.dehazer.Dehazer`.

        Raises:
            UsageError: A value is not possible.
        """
        return {
            "device": self.device,
            "precision": self.precision,
            "resolution": resolution(self.resolution),
            "tile": tile(self.tile),
        }


@dataclass(frozen=True)
class PictureFiles:
    """How pictures are read and written."""

    format: FormatOption = None
    quality: QualityOption = None
    metadata: MetadataOption = "keep"
    bit_depth: BitDepthOption = "auto"
    max_pixels: MaxPixelsOption = None

    def reading(self) -> dict[str, Any]:
        """Keyword arguments of `photo.read`."""
        return {} if self.max_pixels is None else {"max_pixels": self.max_pixels}

    def writing(self) -> dict[str, Any]:
        """Keyword arguments of `photo.write`, for outputs whose names say their format.

        Raises:
            UsageError: The format does not hold that many bits.
        """
        chosen = None if self.format == "same" else self.format
        depth = "auto" if self.bit_depth == "auto" else int(self.bit_depth)
        if chosen is not None:
            check_depth(depth, chosen)
        return {
            "format": chosen,
            "quality": self.quality,
            "metadata": self.metadata,
            "bit_depth": depth,
        }


def check_depth(bits: int | str, format: str | None, suffix: str | None = None, source: str = "PNG") -> None:
    """Refuse to write what does not hold as many bits as are asked for.

    Args:
        bits: 8, 16 or ``auto``.
        format: As for `dehaze.photo.formats.output_format`, like what follows.
        suffix: End of the output's name.
        source: Format of the picture that is read.

    Raises:
        UsageError: The format does not hold 16 bits.
    """
    if bits != 16:
        return
    from dehaze.photo import formats

    formats.check_depth(bits, formats.output_format(format, suffix, source))


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: Typer sees each of their fields as an option of its own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        kind = hints[parameter.name]
        parameters += (
            _options(groups[parameter.name])
            if parameter.name in groups
            else [parameter.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY)]
        )

    @wraps(command)
    def spread(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        command(**values)

    vars(spread)["__signature__"] = signature(command).replace(parameters=parameters)
    spread.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return spread


def _options(group: Any) -> list[Parameter]:
    """A dataclass's fields as parameters."""
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(f.name, Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
        for f in fields(group)
    ]


def _default(of: Field[Any]) -> Any:
    return of.default_factory() if of.default_factory is not MISSING else of.default


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
        UsageError: Neither `auto`, `off` nor a number of at least `dehaze.tiling.MIN_TILE`.
    """
    match text:
        case "auto" | "off":
            return text
    from dehaze.tiling import MIN_TILE

    return _pixels(text, "--tile", "auto, off", least=MIN_TILE)


def size(text: str, *, least: int = 1, example: str) -> tuple[int, int]:
    """Read the value of --size: width and height.

    Raises:
        UsageError: Not of the form WxH, or a side below `least`.
    """
    found = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower(), re.ASCII)
    if not found or min(int(found[1]), int(found[2])) < least:
        raise UsageError(
            f"--size is '{text}': expected WIDTHxHEIGHT in pixels, at least {least} each, such as {example}"
        )
    return int(found[1]), int(found[2])


def _pixels(text: str, flag: str, words: str, *, least: int = 1) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise UsageError(f"{flag} is '{text}': expected {words} or a number of pixels, at least {least}")
    return int(text)
