"""Which picture formats there are: how they are recognised, named and written."""

from __future__ import annotations

from dataclasses import dataclass

from dehaze.errors import UsageError

HEIC_INSTALL = 'pip install "dehaze-cli[heic]"'
"""What installs the optional HEIC reader."""

START_BYTES = 64
"""Bytes that `recognise` needs."""


@dataclass(frozen=True)
class Format:
    """A container.

    Attributes:
        name: As in `PhotoInfo.format`.
        suffixes: File names' ends; the first is given to new files.
        deep: It holds more than 8 bits a sample.
        alpha: It holds transparency.
        gray: It holds gray pictures as such.
        gray_alpha: It holds transparent gray pictures as such.
        metadata: It holds colour profile, EXIF and XMP.
        writable: It is written, not only read.
    """

    name: str
    suffixes: tuple[str, ...]
    deep: bool = False
    alpha: bool = True
    gray: bool = True
    gray_alpha: bool = True
    metadata: bool = True
    writable: bool = True


FORMATS = {
    f.name: f
    for f in (
        Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), alpha=False),
        Format("PNG", (".png",), deep=True),
        Format("WEBP", (".webp",), gray=False),
        Format("AVIF", (".avif",), gray_alpha=False),
        Format("TIFF", (".tiff", ".tif"), deep=True),
        Format("BMP", (".bmp",), alpha=False, metadata=False),
        Format("HEIC", (".heic", ".heif", ".hif"), deep=True, gray_alpha=False),
        Format("GIF", (".gif",), writable=False),
    )
}

PHOTO_SUFFIXES: frozenset[str] = frozenset(suffix for f in FORMATS.values() for suffix in f.suffixes)
"""Lower-case ends of the file names that `read` understands."""

RAW_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3fr", "arw", "cr2", "cr3", "crw", "dng", "erf", "iiq", "kdc", "mef", "mos", "mrw", "nef", "nrw"),
        *("orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srw", "x3f"),
    )
)
"""Lower-case ends of camera raw files' names."""

_BY_SUFFIX = {suffix: f for f in FORMATS.values() for suffix in f.suffixes}
_BY_OPTION = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "avif": "AVIF", "tiff": "TIFF"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif"}
_AVIF_BRANDS = {b"avif", b"avis"}
_SHARED_BRANDS = {b"mif1", b"msf1", b"mif2"}


def recognise(start: bytes) -> str | None:
    """Name the format of a file by its first `START_BYTES` bytes; None if it is none of `FORMATS`."""
    for magic, name in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF")):
        if start.startswith(magic):
            return name
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "BMP"
    if start[4:8] == b"ftyp":
        brands = {start[8:12]} | {start[i : i + 4] for i in range(16, len(start) - 3, 4)}
        major = start[8:12]
        if major in _AVIF_BRANDS or (major in _SHARED_BRANDS and brands & _AVIF_BRANDS):
            return "AVIF"
        if major in _HEIF_BRANDS or (major in _SHARED_BRANDS and brands & _HEIF_BRANDS):
            return "HEIC"
    return None


def output_format(option: str | None, suffix: str | None, source: str) -> Format:
    """Decide what to write.

    Args:
        option: ``same``, ``png``, ``jpg``, ``webp``, ``avif`` or ``tiff``; None follows the file's name.
        suffix: End of the output's name; None if it has no name.
        source: Format of the photo that was read; what cannot be written becomes PNG.

    Raises:
        UsageError: Option or suffix are unknown, or of a format that is only read.
    """
    if option is None and suffix is not None:
        chosen = _BY_SUFFIX.get(suffix.lower())
        if chosen is None or not chosen.writable:
            known = " ".join(f.suffixes[0] for f in FORMATS.values() if f.writable)
            what = f"cannot write pictures named '*{suffix}'" if suffix else "the output's name has no ending"
            raise UsageError(f"{what}: expected one of {known}", "or choose a format with --format")
        return chosen
    if option in (None, "same"):
        return FORMATS[source] if FORMATS[source].writable else FORMATS["PNG"]
    if option not in _BY_OPTION:
        raise UsageError(f"unknown format '{option}': expected same, {', '.join(_BY_OPTION)}")
    return FORMATS[_BY_OPTION[option]]


def check_depth(bits: int | str, chosen: Format) -> None:
    """Refuse to write what does not hold as many bits a sample as are asked for: 8, 16 or ``auto``.

    Raises:
        UsageError: The format does not hold 16.
    """
    if bits == 16 and chosen.name not in ("PNG", "TIFF"):
        raise UsageError(f"{chosen.name} does not hold 16 bits a sample", "use --format png or --format tiff")


def output_suffix(option: str | None, source_suffix: str = "") -> str:
    """The end of a new file's name.

    Args:
        option: As for `output_format`; ``same`` or None keep the source's, if it is of a format we write.
        source_suffix: End of the source's name, such as ``.JPG``.

    Raises:
        UsageError: The option is unknown.
    """
    if option in (None, "same"):
        known = _BY_SUFFIX.get(source_suffix.lower())
        return source_suffix if known is not None and known.writable else FORMATS["PNG"].suffixes[0]
    return output_format(option, None, "PNG").suffixes[0]
