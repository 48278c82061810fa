"""Every kind of file comes out as the pixels that went in."""

from __future__ import annotations

import io
import itertools
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from dehaze import photo
from dehaze.errors import PhotoError
from photo_files import cmyk, encoded, noise, pillow, read, save, scene


def rgb(samples: np.ndarray) -> np.ndarray:
    return np.repeat(samples[..., :1], 3, axis=2) if samples.shape[2] < 3 else samples[..., :3]


def alpha_of(samples: np.ndarray) -> np.ndarray | None:
    return samples[..., -1] if samples.shape[2] in (2, 4) else None


def check(picture: photo.Photo, samples: np.ndarray) -> None:
    """The photo holds exactly (H, W, C) samples: gray, gray and alpha, RGB or RGBA."""
    assert picture.pixels.dtype == samples.dtype
    assert picture.pixels.flags.c_contiguous
    np.testing.assert_array_equal(picture.pixels, rgb(samples))
    alpha = alpha_of(samples)
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(picture.alpha, alpha)
    assert picture.gray == (samples.shape[2] < 3)


def png_file(samples: np.ndarray, colour_type: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A 16-bit PNG without prediction, its passes laid out by hand if it is interlaced."""
    height, width = samples.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [
            *(
                (0, 0, 8, 8),
                (0, 4, 8, 8),
                (4, 0, 8, 4),
                (0, 2, 4, 4),
                (2, 0, 4, 2),
                (0, 1, 2, 2),
                (1, 0, 2, 1),
            ),
        ]
    raw = b""
    for y, x, down, across in passes:
        for row in samples[y::down, x::across].astype(">u2"):
            raw += b"\0" + row.tobytes() if row.size else b""
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlaced)
    body = png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_16_bit_png_keeps_all_bits(colour_type: int, channels: int, interlaced: bool) -> None:
    samples = noise(19, 23, channels, np.uint16)
    picture = read(png_file(samples, colour_type, interlaced=interlaced))
    check(picture, samples)
    assert picture.info.bit_depth == 16


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)])
def test_16_bit_png_with_a_transparent_colour(colour_type: int, channels: int) -> None:
    samples = noise(9, 11, channels, np.uint16)
    key = png_chunk(b"tRNS", samples[2, 3].astype(">u2").tobytes())
    picture = read(png_file(samples, colour_type, extra=key))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.pixels, rgb(samples))
    assert picture.alpha[2, 3] == 0
    assert (picture.alpha == 65535).sum() == 9 * 11 - 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_8_bit_png_modes(mode: str) -> None:
    image = Image.fromarray(scene(channels=4))
    image = image.convert(mode) if mode in ("LA", "RGBA") else image.convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = np.asarray(image.convert("RGBA"))
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, expected[..., :3])
    assert picture.gray == (mode in ("1", "L", "LA"))
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, expected[..., 3])


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_8_bit_png_with_a_transparent_colour(mode: str) -> None:
    image = Image.fromarray(scene()).convert(mode)
    key = image.getpixel((3, 3))
    file = io.BytesIO()
    image.save(file, "PNG", transparency=key)
    expected = np.asarray(pillow(file.getvalue()).convert("RGBA"))
    assert expected[..., 3].min() == 0
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.alpha, expected[..., 3])
    np.testing.assert_array_equal(picture.pixels, expected[..., :3])


_TIFFS = [
    (dtype, channels, compression, planar, tile, order, big)
    for dtype, channels, compression, planar, tile, order, big in itertools.product(
        (np.uint8, np.uint16),
        (1, 2, 3, 4),
        (None, "zlib"),
        ("contig", "separate"),
        (None, (16, 32)),
        "<>",
        (False, True),
    )
    if channels > 1 or planar == "contig"
]


def test_tiff_in_every_layout() -> None:
    """8 and 16 bits, 1 to 4 channels, plain and deflate with prediction, both planar kinds, tiles, both byte
    orders, classic and big."""
    for dtype, channels, compression, planar, tile, order, big in _TIFFS:
        samples = noise(37, 53, channels, dtype)
        laid = samples if planar == "contig" else np.moveaxis(samples, -1, 0)
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            laid[..., 0] if channels == 1 else laid,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig=planar if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            byteorder=order,
            tile=tile,
            compression=compression,
            predictor=True if compression else None,
            bigtiff=big,
        )
        picture = read(file.getvalue())
        check(picture, samples)
        assert picture.info.bit_depth == 8 * samples.itemsize


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lzw_tiff(dtype: type) -> None:
    samples = scene(dtype=dtype)
    lzw = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
    data = cv2.imencode(".tif", cv2.cvtColor(samples, cv2.COLOR_RGB2BGR), lzw)[1].tobytes()
    assert pillow(data).info["compression"] == "tiff_lzw"
    check(read(data), samples)


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        ("1", "group4"),
        ("1", "raw"),
        ("P", "tiff_lzw"),
        ("YCbCr", "raw"),
        ("RGB", "packbits"),
        ("LA", "tiff_lzw"),
    ],
)
def test_other_kinds_of_tiff(mode: str, compression: str) -> None:
    image = Image.fromarray(scene()).convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.gray == (mode in ("1", "LA"))


def test_jpeg_inside_tiff() -> None:
    picture = read(encoded(scene(), "TIFF", compression="jpeg", quality=95))
    assert np.abs(picture.pixels.astype(int) - scene()).mean() < 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_where_white_is_zero(dtype: type) -> None:
    samples = noise(12, 13, 1, dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, samples[..., 0], photometric="miniswhite")
    check(read(file.getvalue()), np.iinfo(dtype).max - samples)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_multiplied_alpha_is_divided(dtype: type) -> None:
    samples, highest = noise(30, 30, 4, dtype), np.iinfo(dtype).max
    multiplied = samples.copy()
    multiplied[..., :3] = np.rint(samples[..., :3] * (samples[..., 3:] / highest))
    file = io.BytesIO()
    tifffile.imwrite(file, multiplied, photometric="rgb", extrasamples=["assocalpha"])
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.alpha, samples[..., 3])
    solid = samples[..., 3] > highest // 2
    assert np.abs(picture.pixels[solid].astype(int) - samples[..., :3][solid]).max() <= 1


def test_tiff_with_pages_gives_the_first_and_says_so() -> None:
    pages = noise(3, 24 * 32, 3, np.uint8).reshape(3, 24, 32, 3)
    file = io.BytesIO()
    tifffile.imwrite(file, pages, photometric="rgb")
    picture = read(file.getvalue())
    check(picture, pages[0])
    assert picture.notices == ["only the first of its pages was used"]


def test_tiff_with_a_preview_page_needs_no_notice() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(scene(), photometric="rgb")
        writer.write(scene(12, 16), photometric="rgb", subfiletype=1)
    assert read(file.getvalue()).notices == []


def test_cmyk_jpeg_without_profile() -> None:
    image = Image.fromarray(scene()).convert("CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=98, subsampling=0)
    picture = read(file.getvalue())
    assert np.abs(picture.pixels.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3
    assert "converted from CMYK to sRGB by a simple rule" in picture.notices[0]
    assert picture.info.icc == b""


def test_ycck_jpeg() -> None:
    """Inks turned into luma and chroma, as Photoshop stores them; built by hand, for Pillow only reads them.

    Decoding YCCK inverts the inks, and Adobe's files hold them inverted: so they are converted as they are.
    """
    ink = scene(channels=4)
    to_chroma = [[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]]
    stored = 255 - ink[..., :3] @ np.array(to_chroma)
    stored[..., 1:] -= 128
    raw = np.concatenate([stored, ink[..., 3:]], axis=2).round().clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    cmyk(raw).save(file, "JPEG", quality=100, subsampling=0)
    data = bytearray(file.getvalue())
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    data[adobe + 11] = 2
    picture = read(bytes(data))
    assert picture.info.format == "JPEG"
    shown = np.asarray(cmyk(ink).convert("RGB")).astype(int)
    assert np.abs(picture.pixels - shown).mean() < 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_tiff(dtype: type) -> None:
    ink = noise(20, 20, 4, dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, ink, photometric="separated")
    levels = ink if dtype == np.uint8 else np.rint(ink / 257).astype(np.uint8)
    expected = np.asarray(cmyk(levels).convert("RGB"))
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, expected)


def test_cmyk_tiff_with_alpha_says_what_is_lost() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, noise(9, 9, 5, np.uint8), photometric="separated", extrasamples=["unassalpha"])
    assert "its extra channels, which are not colours, were left out" in read(file.getvalue()).notices


def test_lab_tiff() -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(scene()), *profiles, outputMode="LAB")
    assert image is not None
    file = io.BytesIO()
    image.save(file, "TIFF")
    picture = read(file.getvalue())
    assert np.abs(picture.pixels.astype(int) - scene()).mean() < 2


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats(format: str, channels: int) -> None:
    samples = scene(channels=channels)
    data = encoded(samples[..., 0] if channels == 1 else samples, format, quality=95)
    picture = read(data)
    expected = np.asarray(pillow(data).convert("RGB"))
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.info.format == format
    assert picture.gray == (channels == 1 and format != "WEBP")


@pytest.mark.parametrize("format", ["WEBP", "AVIF"])
def test_alpha_of_lossy_formats(format: str) -> None:
    data = encoded(scene(channels=4), format)
    np.testing.assert_array_equal(read(data).alpha, np.asarray(pillow(data))[..., 3])


def test_bmp() -> None:
    check(read(encoded(scene(), "BMP")), scene())


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animations_give_the_first_frame_and_say_so(format: str) -> None:
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    if format == "GIF":
        frames = [frame.convert("P") for frame in frames]
    file = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=100, **options)
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, np.asarray(frames[0].convert("RGB")))
    assert picture.notices == ["only the first of its 2 frames was used"]


def test_gif_with_a_transparent_colour() -> None:
    image = Image.fromarray(scene()).convert("P")
    file = io.BytesIO()
    image.save(file, "GIF", transparency=image.getpixel((0, 0)))
    picture = read(file.getvalue())
    assert picture.alpha is not None
    assert picture.alpha[0, 0] == 0


def test_jpeg_with_several_pictures_says_so() -> None:
    file = io.BytesIO()
    other = Image.fromarray(255 - scene())
    Image.fromarray(scene()).save(file, "MPO", save_all=True, append_images=[other], quality=95)
    picture = read(file.getvalue())
    assert np.abs(picture.pixels.astype(int) - scene()).mean() < 2
    assert picture.notices == ["only the first of the pictures in the file was used"]


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_heic(depth: int) -> None:
    library = pytest.importorskip("pillow_heif")
    samples = scene(dtype=np.uint8 if depth == 8 else np.uint16)
    file = io.BytesIO()
    mode = "RGB" if depth == 8 else "RGB;16"
    deep = {} if depth == 8 else {"bit_depth": depth}
    library.encode(mode, (64, 48), samples.tobytes(), file, quality=100, chroma=444, **deep)
    picture = read(file.getvalue())
    assert picture.info.format == "HEIC"
    assert picture.pixels.dtype == samples.dtype
    highest = np.iinfo(samples.dtype).max
    assert np.abs(picture.pixels.astype(float) - samples).mean() < highest / 100
    assert picture.pixels.max() > 0.99 * highest


def test_heic_without_the_extra_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    library.encode("RGB", (64, 48), scene().tobytes(), file)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PhotoError, match="HEIC picture, which needs an extra") as caught:
        read(file.getvalue())
    assert 'pip install "dehaze-cli[heic]"' in caught.value.hint


def test_path_and_stream_give_the_same(tmp_path) -> None:
    data = encoded(scene(), "PNG")
    path = save(tmp_path, "misnamed.jpg", data)
    for source in (path, str(path)):
        np.testing.assert_array_equal(photo.read(source).pixels, read(data).pixels)


@pytest.mark.parametrize(
    "suffix", [".jpg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".heic"]
)
def test_readable_suffixes_are_listed(suffix: str) -> None:
    assert suffix in photo.PHOTO_SUFFIXES
