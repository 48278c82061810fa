"""EXIF and XMP made true of the upright picture, with all else left as the camera wrote it.

EXIF is changed in place: maker notes hold offsets from the start of the whole structure, and rewriting it, as
most libraries do, makes them unreadable.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress

from dehaze.photo import ifd

ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
INCH, CENTIMETRE = 2, 3

_PREFIX = b"Exif\0\0"
_INTEROP_INDEX, _ADOBE_RGB = 0x0001, b"R03\0"
_THUMBNAIL_PLACES = ((0x0201, 0x0202), (0x0111, 0x0117))
_SIDES = ((0x0100, 0x0101), (0xA002, 0xA003), (X_RESOLUTION, Y_RESOLUTION))

_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)([1-8])")
_XMP_THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails>.*?</\1:Thumbnails>", re.DOTALL)
_XMP_OTHER_PICTURES = re.compile(
    rb"<Container:Directory>.*?</Container:Directory>"
    rb"|\s(?:hdrgm|GContainer):\w+=\"[^\"]*\"|\s(?:GCamera|Camera):(?:MicroVideo|MotionPhoto)\w*=\"[^\"]*\"",
    re.DOTALL,
)
_XMP_SIDES = re.compile(rb"(tiff:Image|exif:Pixel|tiff:)(Width|Length|[XY]Dimension|[XY]Resolution)\b")
_SWAPPED = {
    b"Width": b"Length",
    b"Length": b"Width",
    b"XDimension": b"YDimension",
    b"YDimension": b"XDimension",
    b"XResolution": b"YResolution",
    b"YResolution": b"XResolution",
}


def bare(exif: bytes) -> bytes:
    """Remove the ``Exif\\0\\0`` that some containers put before the TIFF structure."""
    return exif[len(_PREFIX) :] if exif.startswith(_PREFIX) else exif


def first_directory(exif: bytes) -> ifd.Directory:
    """Read IFD0 with its EXIF, GPS and interoperability directories; an empty one for empty bytes.

    Raises:
        DamagedError: The structure is damaged.
    """
    return next(ifd.directories(exif), ifd.Directory()) if exif else ifd.Directory()


def says_adobe_rgb(directory: ifd.Directory) -> bool:
    """Whether the camera marked its colours as Adobe RGB, as DCF 2.0 has it: without any profile."""
    interop = directory.children.get(ifd.EXIF, directory).children.get(ifd.INTEROP)
    entry = interop.entries.get(_INTEROP_INDEX) if interop else None
    return entry is not None and entry.data[:4] == _ADOBE_RGB


def resolution(directory: ifd.Directory) -> tuple[float, float] | None:
    """Pixels an inch that a directory states; None if it states none."""
    x, y = directory.ratio(X_RESOLUTION), directory.ratio(Y_RESOLUTION)
    unit = {INCH: 1.0, CENTIMETRE: 2.54}.get(directory.number(RESOLUTION_UNIT, INCH))
    return (x * unit, y * unit) if x and y and unit else None


def put_resolution(directory: ifd.Directory, dpi: tuple[float, float]) -> None:
    """State pixels an inch in a directory."""
    directory.put_ratio(X_RESOLUTION, dpi[0])
    directory.put_ratio(Y_RESOLUTION, dpi[1])
    directory.put(RESOLUTION_UNIT, ifd.SHORT, INCH)


def make_upright(exif: bytes, *, transposed: bool) -> bytes:
    """Set the orientation to 1, drop the thumbnail and, if the sides changed places, swap their tags.

    Entries that lie outside the structure are dropped too; only then do others move.

    Args:
        exif: A TIFF structure.
        transposed: Width and height were exchanged.

    Raises:
        DamagedError: The structure is damaged.
    """
    data = bytearray(exif)
    layout, offset = ifd.read_header(data)
    found, following = ifd.slots(data, layout, offset)
    for slot in found:
        if slot.tag == ORIENTATION:
            struct.pack_into(layout.order + "HIHH", data, slot.entry + 2, ifd.SHORT, 1, 1, 0)
    if transposed:
        _swap_sides(data, layout, found)
    (thumbnail,) = struct.unpack_from(layout.offset, data, following)
    struct.pack_into(layout.offset, data, following, 0)
    if 0 < thumbnail < len(data):
        _blank_thumbnail(data, layout, thumbnail)
    return _repaired(bytes(data))


def make_xmp_upright(xmp: bytes, *, transposed: bool) -> bytes:
    """The same for an XMP packet; what it says of gain maps and films in the file goes with these."""
    xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
    xmp = _XMP_THUMBNAILS.sub(b"", xmp)
    xmp = _XMP_OTHER_PICTURES.sub(b"", xmp)
    if transposed:
        xmp = _XMP_SIDES.sub(lambda match: match[1] + _SWAPPED[match[2]], xmp)
    return xmp


def xmp_orientation(xmp: bytes) -> int | None:
    """The orientation an XMP packet states."""
    match = _XMP_ORIENTATION.search(xmp)
    return int(match[2]) if match else None


def without_orientation(exif: bytes) -> bytes:
    """Take the orientation's entry out of IFD0 and leave every other byte's position as it is.

    Raises:
        DamagedError: The structure is damaged.
    """
    layout, offset = ifd.read_header(exif)
    found, following = ifd.slots(exif, layout, offset)
    at = next((slot.entry for slot in found if slot.tag == ORIENTATION), None)
    if at is None:
        return exif
    data = bytearray(exif)
    end = following + struct.calcsize(layout.offset)
    data[at:end] = data[at + layout.entry_size : end] + bytes(layout.entry_size)
    struct.pack_into(layout.header, data, offset, len(found) - 1)
    return bytes(data)


def _repaired(exif: bytes) -> bytes:
    """The structure itself if it is sound, else one of what can be read of it."""
    directory = first_directory(exif)
    return ifd.header(directory.order) + ifd.write(directory) if directory.damaged else exif


def _swap_sides(data: bytearray, layout: ifd.Layout, found: list[ifd.Slot]) -> None:
    everything = {slot.tag: slot for slot in found}
    if ifd.EXIF in everything:
        with suppress(ValueError, struct.error):
            (child,) = struct.unpack_from(layout.offset, data, everything[ifd.EXIF].value)
            everything |= {slot.tag: slot for slot in ifd.slots(data, layout, child)[0]}
    for pair in _SIDES:
        if all(tag in everything for tag in pair):
            a, b = (
                slice(everything[tag].entry + 2, everything[tag].entry + layout.entry_size) for tag in pair
            )
            data[a], data[b] = data[b], data[a]


def _blank_thumbnail(data: bytearray, layout: ifd.Layout, offset: int) -> None:
    """Zero a thumbnail's directory and pixels, and cut them off where they are the structure's end.

    The directory's own values outside its table stay: some writers share them with IFD0.
    """
    try:
        found, following = ifd.slots(data, layout, offset)
    except ValueError:
        return
    gone = [(offset, following + struct.calcsize(layout.offset))]
    thumbnail = ifd.Directory(layout.order)
    for slot in found:
        if slot.value + slot.size <= len(data):
            value = bytes(data[slot.value : slot.value + slot.size])
            thumbnail.entries[slot.tag] = ifd.Entry(slot.kind, slot.count, value)
    for places, sizes in _THUMBNAIL_PLACES:
        for start, size in zip(thumbnail.numbers(places), thumbnail.numbers(sizes), strict=False):
            gone.append((start, min(start + size, len(data))))
    for start, end in sorted(gone, reverse=True):
        if not 8 <= start < end:
            continue
        data[start:end] = bytes(end - start)
        if end >= len(data) - 1:
            del data[start:]
