"""TIFF directories, which EXIF is made of too: read them, change them in place, write them (TIFF 6.0, 2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from dehaze.photo.damage import DamagedError

SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of one value by type."""

EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7

BIG_KINDS = (16, 17, 18)
"""Types that only BigTIFF has."""

_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_CHILDREN = (EXIF, GPS, INTEROP)
_MAX_DIRECTORIES = 10_000


@dataclass(frozen=True)
class Slot:
    """Where one entry stands: positions are bytes from the start of the file."""

    tag: int
    kind: int
    count: int
    entry: int
    value: int

    @property
    def size(self) -> int:
        """Bytes of all its values."""
        return self.count * SIZES.get(self.kind, 0)


@dataclass(frozen=True)
class Entry:
    """One tag's values, in the byte order of its directory."""

    kind: int
    count: int
    data: bytes


@dataclass
class Directory:
    """A directory and those it points to.

    Attributes:
        order: ``<`` or ``>``, as in `struct`.
        damaged: Entries were left out when it was read, for they lie outside the file or overlap.
    """

    order: str = "<"
    entries: dict[int, Entry] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)
    damaged: bool = False

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Values of a whole-number tag; none if it is absent or of another type."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _LETTERS:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{_LETTERS[entry.kind]}", entry.data)

    def number(self, tag: int, default: int) -> int:
        """First value of a whole-number tag."""
        return next(iter(self.numbers(tag)), default)

    def ratio(self, tag: int) -> float | None:
        """First value of a RATIONAL tag; None if it is absent or divides by zero."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind != RATIONAL or not entry.count:
            return None
        above, below = struct.unpack_from(self.order + "II", entry.data)
        return above / below if below else None

    def put(self, tag: int, kind: int, *values: int) -> None:
        """Set a whole-number tag."""
        data = struct.pack(f"{self.order}{len(values)}{_LETTERS[kind]}", *values)
        self.entries[tag] = Entry(kind, len(values), data)

    def put_ratio(self, tag: int, value: float) -> None:
        """Set a RATIONAL tag, to 1/10,000."""
        self.entries[tag] = Entry(RATIONAL, 1, struct.pack(self.order + "II", round(value * 10_000), 10_000))

    def put_bytes(self, tag: int, data: bytes, kind: int = UNDEFINED) -> None:
        """Set a tag of bytes."""
        self.entries[tag] = Entry(kind, len(data), data)


@dataclass(frozen=True)
class Layout:
    """How a TIFF structure stores numbers: byte order, and 8-byte offsets if it is a BigTIFF."""

    order: str
    big: bool

    @property
    def header(self) -> str:
        """Format of a directory's count of entries."""
        return self.order + ("Q" if self.big else "H")

    @property
    def offset(self) -> str:
        """Format of an offset."""
        return self.order + ("Q" if self.big else "I")

    @property
    def entry_size(self) -> int:
        """Bytes of an entry."""
        return 20 if self.big else 12


def read_header(data: bytes | bytearray) -> tuple[Layout, int]:
    """Read byte order, kind and the first directory's offset.

    Raises:
        DamagedError: This is no TIFF structure.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None or len(data) < 8:
        raise DamagedError("no TIFF structure")
    (magic,) = struct.unpack_from(order + "H", data, 2)
    if magic not in (42, 43) or (magic == 43 and len(data) < 16):
        raise DamagedError("no TIFF structure")
    layout = Layout(order, magic == 43)
    return layout, struct.unpack_from(layout.offset, data, 8 if layout.big else 4)[0]


def slots(data: bytes | bytearray, layout: Layout, offset: int) -> tuple[list[Slot], int]:
    """List a directory's entries, and where the offset of the next directory is stored.

    Raises:
        DamagedError: The directory reaches past the end.
    """
    found = []
    try:
        (count,) = struct.unpack_from(layout.header, data, offset)
        at = offset + struct.calcsize(layout.header)
        width = struct.calcsize(layout.offset)
        end = at + count * layout.entry_size
        if end + width > len(data):
            raise DamagedError("it is cut short")
        for entry in range(at, end, layout.entry_size):
            tag, kind = struct.unpack_from(layout.order + "HH", data, entry)
            (values,) = struct.unpack_from(layout.offset, data, entry + 4)
            value = entry + 4 + width
            if values * SIZES.get(kind, 0) > width:
                (value,) = struct.unpack_from(layout.offset, data, value)
            found.append(Slot(tag, kind, values, entry, value))
    except struct.error as error:
        raise DamagedError("it is cut short") from error
    return found, end


def directories(data: bytes | bytearray) -> Iterator[Directory]:
    """Read the chain of directories: a TIFF's pages, or EXIF's own and its thumbnail's.

    Raises:
        DamagedError: No TIFF structure, or a directory reaches past the end.
    """
    layout, offset = read_header(data)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        yield _read(data, layout, offset, [len(data)])
        _, following = slots(data, layout, offset)
        (offset,) = struct.unpack_from(layout.offset, data, following)


def write(directory: Directory, start: int = 8) -> bytes:
    """Lay out a directory, its values and its children for the file position `start` (even).

    Entries of BigTIFF's types are left out.
    """
    assert start % 2 == 0
    order = directory.order
    entries = {tag: entry for tag, entry in directory.entries.items() if entry.kind not in BIG_KINDS}
    tags = sorted({*entries, *directory.children})
    table = struct.pack(order + "H", len(tags))
    body = b""
    after = start + 2 + 12 * len(tags) + 4
    for tag in tags:
        child = directory.children.get(tag)
        if child is not None:
            table += struct.pack(order + "HHII", tag, LONG, 1, after + len(body))
            body += write(child, after + len(body))
            continue
        entry = entries[tag]
        table += struct.pack(order + "HHI", tag, entry.kind, entry.count)
        if len(entry.data) <= 4:
            table += entry.data.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", after + len(body))
            body += entry.data + bytes(len(entry.data) % 2)
    return table + bytes(4) + body


def header(order: str, offset: int = 8) -> bytes:
    """A TIFF structure's first eight bytes."""
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, offset)


def _read(
    data: bytes | bytearray, layout: Layout, offset: int, budget: list[int], depth: int = 0
) -> Directory:
    """Read a directory and its children; their values together are no larger than the file."""
    directory = Directory(layout.order)
    for slot in slots(data, layout, offset)[0]:
        budget[0] -= slot.size
        if slot.kind not in SIZES or slot.value + slot.size > len(data) or budget[0] < 0:
            directory.damaged = True
            continue
        entry = Entry(slot.kind, slot.count, bytes(data[slot.value : slot.value + slot.size]))
        if slot.tag not in _CHILDREN:
            directory.entries[slot.tag] = entry
            continue
        at = Directory(layout.order, {slot.tag: entry}).number(slot.tag, 0)
        try:
            child = _read(data, layout, at, budget, depth + 1) if depth < len(_CHILDREN) else None
        except ValueError:
            child = None
        directory.damaged |= child is None or child.damaged
        if child is not None:
            directory.children[slot.tag] = child
    return directory
