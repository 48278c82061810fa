"""TIFF: pages read sample by sample at their own depth, and a writer that keeps every tag.

Pillow reads 16-bit colour as 8 bits without a word; OpenCV scrambles separate planes, multiplies alpha into
8-bit pixels and reads 16-bit gray with alpha as 8 bits. But Pillow reads plain gray well, at both depths. So
a page is handed to it as a gray picture, each sample a pixel, and is put together here. Only kinds that need
a colour conversion (palette, JPEG inside TIFF, Lab...) are left to Pillow whole.
"""

from __future__ import annotations

import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from dehaze.photo import ifd
from dehaze.photo.damage import DamagedError
from dehaze.photo.exif import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, put_resolution
from dehaze.photo.ifd import Directory
from dehaze.photo.threads import workers

XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK = 0, 1, 2, 5

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SAMPLES, SUBFILE, PLANAR, PREDICTOR, EXTRA_SAMPLES, SAMPLE_FORMAT = 277, 254, 284, 317, 338, 339
LAYERS, DNG_VERSION = 37724, 50706
_UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2

_STRIPS, _TILES = (273, 279), (324, 325)
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
_FILL_ORDER, _ORIENTATION, _TRANSFER_FUNCTION = 266, 274, 301
_HANDED_TO_PILLOW = {
    *(
        WIDTH,
        HEIGHT,
        BITS,
        COMPRESSION,
        PHOTOMETRIC,
        SAMPLES,
        PLANAR,
        PREDICTOR,
        EXTRA_SAMPLES,
        SAMPLE_FORMAT,
    ),
    *(_FILL_ORDER, *_STRIPS, *_TILES, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT),
    *(292, 293, 320, 332, 334, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
_SINGLE = (
    WIDTH,
    HEIGHT,
    COMPRESSION,
    PHOTOMETRIC,
    SAMPLES,
    PLANAR,
    _ROWS_PER_STRIP,
    _TILE_WIDTH,
    _TILE_HEIGHT,
)
_NOT_METADATA = _HANDED_TO_PILLOW | {
    *(SUBFILE, 255, _ORIENTATION, 280, 281, 288, 289, _TRANSFER_FUNCTION, 330, LAYERS, 50715),
    *(XMP, IPTC, PHOTOSHOP, ICC, ifd.EXIF, ifd.GPS, ifd.INTEROP),
}
_PLAIN_COMPRESSIONS = {1, 5, 8, 32773, 32946}
_DEFLATE, _HORIZONTAL = 8, 2
_REDUCED = 1
_MOST_SAMPLES = 64
_STRIP_BYTES = 1 << 19
_LEVEL = 6
_CLASSIC_LIMIT = 2**32

Samples = npt.NDArray[Any]


def pages(data: bytes) -> tuple[Directory, int]:
    """Read the first page's directory, and count the pages that are no thumbnails.

    Raises:
        DamagedError: The structure is damaged.
    """
    first = next(ifd.directories(data), None)
    if first is None:
        raise DamagedError("it has no page")
    if any(len(first.numbers(tag)) > 1 for tag in _SINGLE) or first.number(SAMPLES, 1) > _MOST_SAMPLES:
        raise DamagedError("its header is damaged")
    rest = islice(ifd.directories(data), 1, None)
    return first, 1 + sum(not page.number(SUBFILE, 0) & _REDUCED for page in rest)


def depth(page: Directory) -> int:
    """Most bits of any sample."""
    return max(page.numbers(BITS) or (1,))


def check_complete(data: bytes, page: Directory) -> None:
    """Check that all of a page's pixels lie within the file.

    Raises:
        DamagedError: They do not, or the page has none.
    """
    places = [(page.numbers(offsets), page.numbers(sizes)) for offsets, sizes in (_STRIPS, _TILES)]
    blocks = [block for offsets, sizes in places for block in zip(offsets, sizes, strict=False)]
    if not blocks:
        raise DamagedError("it has no pixels")
    if any(offset + size > len(data) for offset, size in blocks):
        raise DamagedError("it is cut short")


def is_plain(page: Directory) -> bool:
    """Whether `decode` reads the page; if not, Pillow must."""
    return (
        page.number(COMPRESSION, 1) in _PLAIN_COMPRESSIONS
        and page.number(PHOTOMETRIC, BLACK_IS_ZERO) in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK)
        and set(page.numbers(BITS)) in ({8}, {16})
        and page.number(PREDICTOR, 1) in (1, _HORIZONTAL)
        and set(page.numbers(SAMPLE_FORMAT)) <= {1}
        and page.number(_FILL_ORDER, 1) == 1
    )


def decode(data: bytes, page: Directory) -> Samples:
    """Decode a plain page.

    Returns:
        (H, W, C) uint8 or uint16; C as stored, white is the highest value.

    Raises:
        DamagedError: Its pixels are damaged.
    """
    width, height, count = page.number(WIDTH, 0), page.number(HEIGHT, 0), page.number(SAMPLES, 1)
    if page.number(PLANAR, 1) == 1 or count == 1:
        samples = _decode_gray(data, page, count).reshape(height, width, count)
    else:
        planes = [_decode_gray(data, _plane(page, index, count), 1) for index in range(count)]
        samples = np.stack(planes, axis=-1)
    if page.number(PHOTOMETRIC, BLACK_IS_ZERO) == WHITE_IS_ZERO:
        samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
    return samples


def open_page(data: bytes) -> Image.Image:
    """Open the first page with Pillow, whatever its size: the caller has checked it."""
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    # Given its memory, the decoder does not apply Pillow's own limit on pixels.
    image.im = Image.new(image.mode, image.size).im
    return image


def pixels_only(data: bytes, page: Directory) -> bytes:
    """The file with a first page that has nothing but its pixels, for Pillow."""
    bare = Directory(page.order)
    for tag in _HANDED_TO_PILLOW & page.entries.keys():
        entry = page.entries[tag]
        if entry.kind in ifd.BIG_KINDS:
            bare.put(tag, ifd.LONG, *page.numbers(tag))
        else:
            bare.entries[tag] = entry
    return _with_page(data, bare)


def metadata(page: Directory) -> bytes:
    """The page's descriptive tags, EXIF and GPS directories, as an EXIF structure."""
    kept = Directory(page.order, {t: e for t, e in page.entries.items() if t not in _NOT_METADATA})
    kept.children = page.children
    has_news = set(kept.entries) - {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT} or kept.children
    return ifd.header(page.order) + ifd.write(kept) if has_news else b""


def blob(page: Directory, tag: int) -> bytes:
    """Bytes of a tag; empty if it is absent."""
    entry = page.entries.get(tag)
    return entry.data if entry else b""


def encode(
    samples: Samples,
    described: Directory,
    *,
    icc: bytes = b"",
    xmp: bytes = b"",
    photoshop: bytes = b"",
    dpi: tuple[float, float] | None = None,
    mask: bool = False,
) -> bytes:
    """Make a TIFF file: one page, deflate with horizontal differences.

    Args:
        samples: (H, W, C), uint8 or uint16; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        described: IFD0 of the photo's EXIF, whose byte order the file takes: maker notes depend on it.
        icc: Colour profile.
        xmp: XMP packet.
        photoshop: Photoshop image resources.
        dpi: Pixels an inch.
        mask: The last channel of two or four is not transparency.

    Raises:
        ValueError: The file would be larger than TIFF allows, 4 GiB.
    """
    _, width, channels = samples.shape
    rows = max(1, _STRIP_BYTES // (width * channels * samples.itemsize))
    page = Directory(described.order, children=described.children)
    page.entries = {tag: e for tag, e in described.entries.items() if tag not in _NOT_METADATA}
    strips = _compress(samples, rows, page.order)
    sizes = [len(strip) for strip in strips]
    if sum(sizes) + 2**24 > _CLASSIC_LIMIT:
        raise ValueError("it would be larger than 4 GiB, which TIFF cannot hold")
    _describe(page, samples, rows)
    if channels in (2, 4):
        page.put(EXTRA_SAMPLES, ifd.SHORT, _UNSPECIFIED if mask else UNASSOCIATED)
    page.put(_STRIPS[0], ifd.LONG, *(8 + sum(sizes[:i]) for i in range(len(sizes))))
    page.put(_STRIPS[1], ifd.LONG, *sizes)
    for tag, content, kind in (
        (XMP, xmp, ifd.BYTE),
        (PHOTOSHOP, photoshop, ifd.BYTE),
        (ICC, icc, ifd.UNDEFINED),
    ):
        if content:
            page.put_bytes(tag, content, kind)
    if dpi:
        put_resolution(page, dpi)
    body = b"".join(strips)
    body += bytes(len(body) % 2)
    offset = 8 + len(body)
    return ifd.header(page.order, offset) + body + ifd.write(page, offset)


def _describe(page: Directory, samples: Samples, rows: int) -> None:
    height, width, channels = samples.shape
    page.put(WIDTH, ifd.LONG, width)
    page.put(HEIGHT, ifd.LONG, height)
    page.put(BITS, ifd.SHORT, *[8 * samples.itemsize] * channels)
    page.put(COMPRESSION, ifd.SHORT, _DEFLATE)
    page.put(PHOTOMETRIC, ifd.SHORT, RGB if channels >= 3 else BLACK_IS_ZERO)
    page.put(_ORIENTATION, ifd.SHORT, 1)
    page.put(SAMPLES, ifd.SHORT, channels)
    page.put(_ROWS_PER_STRIP, ifd.LONG, rows)
    page.put(PLANAR, ifd.SHORT, 1)
    page.put(PREDICTOR, ifd.SHORT, _HORIZONTAL)
    page.put(SAMPLE_FORMAT, ifd.SHORT, *[1] * channels)


def _compress(samples: Samples, rows: int, order: str) -> list[bytes]:
    stored = samples.dtype.newbyteorder("<" if order == "<" else ">")

    def strip(start: int) -> bytes:
        part = samples[start : start + rows]
        differences = part.copy()
        differences[:, 1:] -= part[:, :-1]
        return zlib.compress(differences.astype(stored, copy=False).tobytes(), _LEVEL)

    with ThreadPoolExecutor(workers()) as pool:
        return list(pool.map(strip, range(0, len(samples), rows)))


def _decode_gray(data: bytes, page: Directory, count: int) -> Samples:
    """Decode samples as if each were a gray pixel: (H, W * count).

    Horizontal differences are undone here: the decoder would take them from the neighbour, not the pixel.
    """
    gray = Directory(page.order)
    width, bits = page.number(WIDTH, 0) * count, depth(page)
    for tag in (HEIGHT, COMPRESSION, *_STRIPS, _ROWS_PER_STRIP, *_TILES, _TILE_HEIGHT):
        if tag in page.entries:
            gray.put(tag, ifd.LONG, *page.numbers(tag))
    gray.put(COMPRESSION, ifd.SHORT, page.number(COMPRESSION, 1))
    gray.put(WIDTH, ifd.LONG, width)
    gray.put(BITS, ifd.SHORT, bits)
    gray.put(SAMPLES, ifd.SHORT, 1)
    gray.put(PHOTOMETRIC, ifd.SHORT, BLACK_IS_ZERO)
    tile = page.number(_TILE_WIDTH, 0) * count
    if tile:
        gray.put(_TILE_WIDTH, ifd.LONG, tile)
    samples = np.array(open_page(_with_page(data, gray)))
    samples = samples.astype(np.uint8 if bits == 8 else np.uint16, copy=False)
    if samples.shape != (page.number(HEIGHT, 0), width):
        raise DamagedError("its header is damaged")
    if page.number(PREDICTOR, 1) == _HORIZONTAL:
        step = tile or width
        for start in range(0, width, step):
            block = samples[:, start : start + step].reshape(len(samples), -1, count)
            np.cumsum(block, axis=1, dtype=samples.dtype, out=block)
            samples[:, start : start + step] = block.reshape(len(samples), -1)
    return samples


def _plane(page: Directory, index: int, count: int) -> Directory:
    plane = Directory(page.order, dict(page.entries))
    for tag in (*_STRIPS, *_TILES):
        numbers = page.numbers(tag)
        if numbers:
            blocks = len(numbers) // count
            plane.put(tag, page.entries[tag].kind, *numbers[index * blocks : (index + 1) * blocks])
    return plane


def _with_page(data: bytes, page: Directory) -> bytes:
    """The file's bytes with `page` as its only directory.

    Raises:
        DamagedError: The file is too large for 4-byte offsets.
    """
    start = len(data) + len(data) % 2
    if start >= _CLASSIC_LIMIT:
        raise DamagedError("it is larger than 4 GiB")
    padding = bytes(start - len(data))
    return b"".join([ifd.header(page.order, start), data[8:], padding, ifd.write(page, start)])
