"""Awkward picture files, laid out byte by byte so that the tests do not lean on the code they test."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from dehaze import photo

MAKER_NOTE = b"CANON-LIKE\0" + bytes(range(200))
THUMBNAIL = b"\xff\xd8" + b"old hazy thumbnail" * 50 + b"\xff\xd9"
CAPTION = b"\x1c\x02\x78\x00\x0ba foggy bay"
P3_PRIMARIES = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_PRIMARIES = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO_PRIMARIES = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03135, 0.00009, 0.82491))
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
D50 = (0.9642, 1.0, 0.8249)

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}


def scene(height: int = 48, width: int = 64, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """A smooth picture whose corners differ: (H, W, C)."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [x, y, 1 - x * y, 0.25 + 0.75 * x]
    highest = np.iinfo(dtype).max
    return np.stack([np.rint(p * highest) for p in planes[:channels]], axis=-1).astype(dtype)


def noise(height: int, width: int, channels: int, dtype: type, seed: int = 0) -> np.ndarray:
    highest = int(np.iinfo(dtype).max)
    return np.random.default_rng(seed).integers(0, highest + 1, (height, width, channels)).astype(dtype)


def encoded(pixels: np.ndarray, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def cmyk(ink: np.ndarray) -> Image.Image:
    """A picture of (H, W, 4) uint8 inks."""
    return Image.frombytes("CMYK", ink.shape[1::-1], ink.tobytes())


def read(data: bytes) -> photo.Photo:
    return photo.read(io.BytesIO(data))


def written(picture: photo.Photo, format: str | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    photo.write(picture, file, format=format, **options)
    return file.getvalue()


def pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def xmp_packet(orientation: int = 1, width: int = 64, height: int = 48) -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        f'tiff:Orientation="{orientation}" tiff:ImageWidth="{width}" tiff:ImageLength="{height}" '
        'xmp:Rating="4"><xmp:Thumbnails>stale</xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def camera_exif(
    orientation: int = 1,
    order: str = "<",
    *,
    width: int = 64,
    height: int = 48,
    dpi: tuple[int, int] = (300, 300),
    thumbnail: bool = True,
    interop: bytes = b"R98\0",
    maker_note: bytes = MAKER_NOTE,
    xmp: bytes = b"",
) -> bytes:
    """EXIF as a camera lays it out: IFD0, EXIF, maker note, GPS, interoperability, IFD1, thumbnail."""
    exif: dict[int, tuple] = {
        0x9003: (2, b"2026:11:05 07:41:12\0"),
        0x829A: (5, struct.pack(order + "II", 1, 250)),
        0x927C: (7, maker_note),
        0xA002: (4, struct.pack(order + "I", width)),
        0xA003: (4, struct.pack(order + "I", height)),
        0xA005: {0x0001: (2, interop), 0x0002: (7, b"0100")},
        0xA434: (2, b"Fog Lens 35mm\0"),
    }
    gps = {
        0x0001: (2, b"N\0"),
        0x0002: (5, struct.pack(order + "6I", 46, 1, 12, 1, 3456, 100)),
        0x0003: (2, b"E\0"),
        0x0004: (5, struct.pack(order + "6I", 7, 1, 26, 1, 789, 100)),
    }
    main = {
        0x010F: (2, b"Nebel AG\0"),
        0x0110: (2, b"Cam\0"),
        0x0112: (3, struct.pack(order + "H", orientation)),
        0x011A: (5, struct.pack(order + "II", dpi[0], 1)),
        0x011B: (5, struct.pack(order + "II", dpi[1], 1)),
        0x0128: (3, struct.pack(order + "H", 2)),
        0x8298: (2, b"(c) somebody\0"),
        0x8769: exif,
        0x8825: gps,
    }
    if xmp:
        main[700] = (1, xmp)
    data = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    body, pointer = lay_out(main, 8, order)
    data += body
    if thumbnail:
        data = bytearray(data)
        struct.pack_into(order + "I", data, pointer, len(data))
        table = 2 + 3 * 12 + 4
        small = {
            0x0103: (3, struct.pack(order + "H", 6)),
            0x0201: (4, struct.pack(order + "I", len(data) + table)),
            0x0202: (4, struct.pack(order + "I", len(THUMBNAIL))),
        }
        data += lay_out(small, len(data), order)[0] + THUMBNAIL
    return bytes(data)


def lay_out(directory: dict[int, object], start: int, order: str) -> tuple[bytes, int]:
    """One IFD with its values behind it; also the position of its pointer to the next."""
    table = struct.pack(order + "H", len(directory))
    body, after = b"", start + 2 + 12 * len(directory) + 4
    for tag, value in sorted(directory.items()):
        if isinstance(value, dict):
            table += struct.pack(order + "HHII", tag, 4, 1, after + len(body))
            body += lay_out(value, after + len(body), order)[0]
            continue
        kind, content = value
        table += struct.pack(order + "HHI", tag, kind, len(content) // _SIZES[kind])
        if len(content) <= 4:
            table += content.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", after + len(body))
            body += content + bytes(len(content) % 2)
    return table + bytes(4) + body, start + len(table)


def exif_tags(data: bytes) -> dict[str, dict[int, object]]:
    """All EXIF of a picture file, as Pillow reads it."""
    exif = pillow(data).getexif()
    return {
        "main": {k: v for k, v in exif.items() if k not in (0x8769, 0x8825)},
        "exif": {k: v for k, v in exif.get_ifd(0x8769).items() if k != 0xA005},
        "gps": dict(exif.get_ifd(0x8825)),
        "thumbnail": dict(exif.get_ifd(1)),
    }


def photoshop_resources() -> bytes:
    """Image resources: a caption, then a thumbnail."""
    blocks = b""
    for code, content in ((0x0404, CAPTION), (0x040C, bytes(28) + THUMBNAIL)):
        blocks += b"8BIM" + struct.pack(">HHI", code, 0, len(content)) + content + bytes(len(content) % 2)
    return blocks


def with_segments(jpeg: bytes, *segments: tuple[int, bytes]) -> bytes:
    """Put segments of (marker, content) right behind a JPEG's start."""
    laid = b"".join(struct.pack(">BBH", 0xFF, marker, len(c) + 2) + c for marker, c in segments)
    return jpeg[:2] + laid + jpeg[2:]


def table_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of the given tags, XYZ as connection space."""
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02400000, kind, space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def lut16(
    inputs: list[np.ndarray], nodes: np.ndarray, outputs: list[np.ndarray], matrix: np.ndarray | None = None
) -> bytes:
    """An ICC lut16Type: curves in [0, 1], nodes (2 ** inputs, outputs) in [0, 1]."""
    numbers = np.eye(3) if matrix is None else matrix
    data = b"mft2" + bytes(4) + bytes([len(inputs), nodes.shape[1], 2, 0]) + fixed(numbers.ravel())
    data += struct.pack(">HH", len(inputs[0]), len(outputs[0]))
    for part in (*inputs, nodes.ravel(), *outputs):
        data += np.rint(np.clip(part, 0, 1) * 65535).astype(">u2").tobytes()
    return data


def fixed(numbers: object) -> bytes:
    return b"".join(struct.pack(">i", round(float(n) * 65536)) for n in numbers)


def save(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
