"""PNG's chunks: read apart from the picture, and a writer for all depths and kinds.

Pillow reads and writes 16 bits for gray alone; OpenCV writes 16-bit colour but no metadata.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dehaze.photo.damage import DamagedError
from dehaze.photo.jpeg import XMP_PREFIX
from dehaze.photo.threads import workers

Chunk = tuple[bytes, bytes]
"""Type and content."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_INFLATED = 64 * 1024 * 1024
"""Bytes a compressed profile or text may unfold to."""

_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_COLOUR = {b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI"}
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_PROFILE = b"Raw profile type "
_RAW_KINDS = {b"exif", b"APP1", b"xmp", b"iptc", b"8bim"}
_HEX_LINE = 72
_INCH = 0.0254
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_STRIP_BYTES = 1 << 18
_LEVEL = 6


@dataclass
class Split:
    """A PNG file taken apart.

    Attributes:
        size: Width and height.
        bit_depth: Bits a sample.
        colour_type: PNG's code: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGBA.
        transparent: Content of tRNS.
        picture: A PNG file without metadata.
        photoshop: Photoshop image resources.
        iptc: IPTC data outside such resources.
        frames: Frames of an animation; 1 if there is none.
    """

    size: tuple[int, int] = (0, 0)
    bit_depth: int = 8
    colour_type: int = 2
    transparent: bytes = b""
    picture: bytes = b""
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    photoshop: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    frames: int = 1
    text: list[Chunk] = field(default_factory=list)
    colour: list[Chunk] = field(default_factory=list)


def split(data: bytes) -> Split:
    """Take a PNG file apart.

    Raises:
        DamagedError: The file is cut short or a checksum of the picture's chunks is wrong.
    """
    found = Split()
    kept = [SIGNATURE]
    at, name = len(SIGNATURE), b""
    while name != b"IEND":
        if at + 12 > len(data):
            raise DamagedError("it is cut short")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise DamagedError("it is cut short")
        content = data[at + 8 : end - 4]
        if name in _PICTURE:
            if zlib.crc32(content, zlib.crc32(name)) != struct.unpack_from(">I", data, end - 4)[0]:
                raise DamagedError("a checksum is wrong")
            if name != b"tRNS" or found.bit_depth < 16:
                kept.append(data[at:end])
        _take(found, name, content)
        at = end
    found.picture = b"".join(kept)
    return found


def encode(samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], chunks: Iterable[Chunk]) -> bytes:
    """Make a PNG file.

    Args:
        samples: (H, W, C), uint8 or uint16; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        chunks: Metadata, in the order they are to stand between header and picture.
    """
    height, width, channels = samples.shape
    head = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [SIGNATURE, _chunk(b"IHDR", head)]
    parts += [_chunk(*chunk) for chunk in chunks]
    parts += [_chunk(b"IDAT", content) for content in _deflate(samples)]
    return b"".join([*parts, _chunk(b"IEND", b"")])


def metadata_chunks(
    *,
    icc: bytes = b"",
    colour: Iterable[Chunk] = (),
    dpi: tuple[float, float] | None = None,
    exif: bytes = b"",
    xmp: bytes = b"",
    photoshop: bytes = b"",
    text: Iterable[Chunk] = (),
) -> list[Chunk]:
    """Make the chunks of a file's metadata; a profile overrules other statements on colour."""
    chunks: list[Chunk] = []
    if icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
        colour = [chunk for chunk in colour if chunk[0] != b"sRGB"]
    chunks += colour
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in dpi), 1)))
    if exif:
        chunks.append((b"eXIf", exif))
    if xmp:
        chunks.append((b"iTXt", _XMP_KEYWORD + bytes(4) + xmp))
    if photoshop:
        chunks.append(_raw_profile(b"8bim", photoshop))
    return [*chunks, *text]


def _take(found: Split, name: bytes, content: bytes) -> None:
    try:
        if name == b"IHDR":
            width, height, found.bit_depth, found.colour_type = struct.unpack_from(">IIBB", content)
            found.size = (width, height)
        elif name == b"tRNS":
            found.transparent = content
        elif name == b"eXIf":
            found.exif = content
        elif name == b"iCCP":
            found.icc = _inflate(content[content.index(0) + 2 :])
        elif name == b"pHYs" and len(content) == 9 and content[8] == 1:
            x, y = struct.unpack_from(">II", content)
            found.dpi = (x * _INCH, y * _INCH) if x and y else None
        elif name == b"acTL":
            (found.frames,) = struct.unpack_from(">I", content)
        elif name in _COLOUR:
            found.colour.append((name, content))
        elif name in _TEXT:
            _take_text(found, name, content)
    except (ValueError, zlib.error, struct.error) as error:
        if name in _PICTURE:
            raise DamagedError("its header is damaged") from error


def _take_text(found: Split, name: bytes, content: bytes) -> None:
    if name == b"iTXt" and content.startswith(_XMP_KEYWORD):
        compressed = content[len(_XMP_KEYWORD)]
        # Two flags, then language and translated keyword, each ended by a zero.
        packet = content[len(_XMP_KEYWORD) + 2 :].split(b"\0", 2)[2]
        found.xmp = _inflate(packet) if compressed else packet
    elif content.startswith(_RAW_PROFILE):
        _take_raw_profile(found, name, content)
    else:
        found.text.append((name, content))


def _take_raw_profile(found: Split, name: bytes, content: bytes) -> None:
    """ImageMagick's way to store what PNG had no chunk for: a name, a length, then lines of hex digits."""
    keyword, text = content.split(b"\0", 1)
    kind = keyword[len(_RAW_PROFILE) :]
    if kind not in _RAW_KINDS:
        found.text.append((name, content))
        return
    if name == b"zTXt":
        text = _inflate(text[1:])
    profile = bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    if kind == b"xmp" or profile.startswith(XMP_PREFIX):
        found.xmp = found.xmp or profile.removeprefix(XMP_PREFIX)
    elif kind in (b"exif", b"APP1"):
        found.exif = found.exif or profile
    elif profile.startswith(b"8BIM"):
        found.photoshop = found.photoshop or profile
    else:
        found.iptc = found.iptc or profile


def _raw_profile(kind: bytes, profile: bytes) -> Chunk:
    digits = profile.hex().encode()
    lines = [digits[start : start + _HEX_LINE] for start in range(0, len(digits), _HEX_LINE)]
    text = b"\n".join([b"", kind, b"%8d" % len(profile), *lines, b""])
    return b"zTXt", _RAW_PROFILE + kind + b"\0\0" + zlib.compress(text)


def _inflate(content: bytes) -> bytes:
    inflater = zlib.decompressobj()
    unfolded = inflater.decompress(content, MAX_INFLATED)
    if not inflater.eof:
        raise DamagedError("a compressed chunk is cut short or too large")
    return unfolded


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _deflate(samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> list[bytes]:
    """Filter and compress in strips, several at a time, into one zlib stream.

    Strips end on a whole byte, so that strips compressed apart join without a seam. Only runs are looked for:
    what prediction leaves of a photo has no longer repeats, and this is smaller and three times as fast.
    """
    height, width, channels = samples.shape
    pixel = channels * samples.itemsize
    rows = max(1, _STRIP_BYTES // (width * pixel))
    big_endian = samples.astype(samples.dtype.newbyteorder(">"), copy=False)
    lines = np.ascontiguousarray(big_endian).view(np.uint8).reshape(height, width * pixel)
    starts = range(0, height, rows)

    def filtered(start: int) -> bytes:
        above = lines[start - 1] if start else np.zeros_like(lines[0])
        return _filter(lines[start : start + rows], above, pixel).tobytes()

    def compressed(strip: bytes, last: bool) -> bytes:
        deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15, strategy=zlib.Z_RLE)
        return deflater.compress(strip) + deflater.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    with ThreadPoolExecutor(workers()) as pool:
        strips = list(pool.map(filtered, starts))
        parts = list(pool.map(compressed, strips, [start == starts[-1] for start in starts]))
    checksum = 1
    for strip in strips:
        checksum = zlib.adler32(strip, checksum)
    parts[0] = b"\x78\x9c" + parts[0]
    parts[-1] += struct.pack(">I", checksum)
    return parts


def _filter(lines: npt.NDArray[np.uint8], above: npt.NDArray[np.uint8], pixel: int) -> npt.NDArray[np.uint8]:
    """Predict each byte from its neighbours, each row by whichever of two filters leaves less.

    Args:
        lines: (rows, bytes).
        above: (bytes,), the row before the first.
        pixel: Bytes a pixel.

    Returns:
        (rows, 1 + bytes): filter's number, then the differences.
    """
    up = np.vstack([above[None], lines[:-1]])
    left, corner = np.zeros_like(lines), np.zeros_like(lines)
    left[:, pixel:] = lines[:, :-pixel]
    corner[:, pixel:] = up[:, :-pixel]
    by_row, by_paeth = lines - up, lines - _paeth(left, up, corner)
    better = _size(by_paeth) < _size(by_row)
    filtered = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = np.where(better, 4, 2)
    filtered[:, 1:] = np.where(better[:, None], by_paeth, by_row)
    return filtered


def _size(differences: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Each row's sum of distances from zero, going round at 256."""
    return np.asarray(np.minimum(differences, -differences).sum(axis=1, dtype=np.int64))


def _paeth(
    left: npt.NDArray[np.uint8], up: npt.NDArray[np.uint8], corner: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """PNG 3rd edition, 9.4: of left, up and corner the one nearest to left + up - corner."""
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    to_left, to_up, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    guess = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, guess)
