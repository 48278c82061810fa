"""JPEG's segments: metadata apart from the compressed picture, and back."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from dehaze.photo.damage import DamagedError

EXIF_PREFIX = b"Exif\0\0"
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
XMP_EXTENSION_PREFIX = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP_PREFIX = b"Photoshop 3.0\0"
MAX_CONTENT = 65533
"""Bytes a segment holds besides its marker and length."""
MAX_EXIF, MAX_XMP = MAX_CONTENT - len(EXIF_PREFIX), MAX_CONTENT - len(XMP_PREFIX)

_ICC_PREFIX, _MPF_PREFIX = b"ICC_PROFILE\0", b"MPF\0"
_JFIF_PREFIX = b"JFIF\0"
_APP0, _APP1, _APP2, _APP13, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
_START_OF_SCAN, _END = 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}
_PICTURE_APPS = {_APP0, 0xEE}
_THUMBNAILS = {0x0409, 0x040C}


@dataclass
class Split:
    """A JPEG file taken apart.

    Attributes:
        picture: A JPEG file without metadata.
        several: The file holds further pictures: previews, a gain map, another eye.
    """

    picture: bytes = b""
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    xmp_extension: tuple[bytes, ...] = ()
    photoshop: bytes = b""
    comment: bytes = b""
    dpi: tuple[float, float] | None = None
    several: bool = False
    _icc_parts: dict[int, bytes] = field(default_factory=dict)


def split(data: bytes) -> Split:
    """Take a JPEG file apart.

    Raises:
        DamagedError: The file ends, or stops making sense, before the picture starts.
    """
    found = Split()
    kept = [data[:2]]
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if at + 4 > len(data):
            raise DamagedError("it is cut short")
        if data[at] != 0xFF:
            raise DamagedError("its header is damaged")
        marker = data[at + 1]
        if marker in _ALONE:
            at += 2
            continue
        if marker in (_START_OF_SCAN, _END):
            break
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        content = data[at + 4 : end]
        if not _take(found, marker, content):
            kept.append(data[at:end])
        at = end
    found.picture = b"".join([*kept, data[at:]])
    found.icc = b"".join(part for _, part in sorted(found._icc_parts.items()))
    return found


def insert(
    data: bytes,
    *,
    exif: bytes = b"",
    icc: bytes = b"",
    xmp: bytes = b"",
    xmp_extension: tuple[bytes, ...] = (),
    photoshop: bytes = b"",
    comment: bytes = b"",
) -> bytes:
    """Put metadata into a JPEG file that has none, behind its JFIF header."""
    contents = [(_APP1, EXIF_PREFIX + exif)] if exif else []
    contents += [(_APP1, XMP_PREFIX + xmp)] if xmp else []
    contents += [(_APP1, XMP_EXTENSION_PREFIX + part) for part in xmp_extension]
    parts = _pieces(icc, MAX_CONTENT - len(_ICC_PREFIX) - 2)
    for number, part in enumerate(parts, 1):
        contents.append((_APP2, _ICC_PREFIX + bytes([number, len(parts)]) + part))
    contents += [
        (_APP13, PHOTOSHOP_PREFIX + part) for part in _pieces(photoshop, MAX_CONTENT - len(PHOTOSHOP_PREFIX))
    ]
    contents += [(_COMMENT, comment)] if comment else []
    segments = [struct.pack(">BBH", 0xFF, marker, len(c) + 2) + c for marker, c in contents]
    at = 2
    if data[2:4] == bytes([0xFF, _APP0]):
        at += 2 + struct.unpack_from(">H", data, 4)[0]
    return b"".join([data[:at], *segments, data[at:]])


def without_thumbnails(resources: bytes) -> bytes:
    """Drop the thumbnails from Photoshop image resources; damaged resources are cut at the damage."""
    kept, at = [], 0
    while resources[at : at + 4] == b"8BIM":
        name = resources[at + 6] if at + 6 < len(resources) else 0
        sized = at + 6 + (name + 2) // 2 * 2
        if sized + 4 > len(resources):
            break
        code, size = (
            struct.unpack_from(">H", resources, at + 4)[0],
            struct.unpack_from(">I", resources, sized)[0],
        )
        end = sized + 4 + size
        if end > len(resources):
            break
        if code not in _THUMBNAILS:
            kept.append(resources[at:end] + bytes(size % 2))
        at = end + size % 2
    return b"".join(kept)


def _pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def _take(found: Split, marker: int, content: bytes) -> bool:
    """File a segment away; False if the decoder needs it."""
    if marker == _APP1 and content.startswith(EXIF_PREFIX):
        found.exif = found.exif or content[len(EXIF_PREFIX) :]
    elif marker == _APP1 and content.startswith(XMP_PREFIX):
        found.xmp = content[len(XMP_PREFIX) :]
    elif marker == _APP1 and content.startswith(XMP_EXTENSION_PREFIX):
        found.xmp_extension += (content[len(XMP_EXTENSION_PREFIX) :],)
    elif marker == _APP2 and content.startswith(_ICC_PREFIX) and len(content) > len(_ICC_PREFIX) + 2:
        found._icc_parts[content[len(_ICC_PREFIX)]] = content[len(_ICC_PREFIX) + 2 :]
    elif marker == _APP2 and content.startswith(_MPF_PREFIX):
        found.several = True
    elif marker == _APP13 and content.startswith(PHOTOSHOP_PREFIX):
        found.photoshop += content[len(PHOTOSHOP_PREFIX) :]
    elif marker == _COMMENT:
        found.comment = found.comment or content
    elif marker == _APP0 and content.startswith(_JFIF_PREFIX) and len(content) >= 12:
        found.dpi = _density(content)
        return False
    return marker not in _PICTURE_APPS and (marker & 0xF0 == 0xE0 or marker == _COMMENT)


def _density(jfif: bytes) -> tuple[float, float] | None:
    unit, x, y = struct.unpack_from(">BHH", jfif, 7)
    scale = {1: 1.0, 2: 2.54}.get(unit)
    return (x * scale, y * scale) if scale and x and y else None
