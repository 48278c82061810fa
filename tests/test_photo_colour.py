"""Colours of wide-gamut, gray and CMYK profiles, against LittleCMS and published values."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from dehaze import photo
from dehaze.photo.colour import TableTransform, transform_for
from dehaze.photo.icc import make_profile
from photo_files import (
    ADOBE_PRIMARIES,
    D50,
    P3_PRIMARIES,
    PROPHOTO_PRIMARIES,
    SRGB_PRIMARIES,
    camera_exif,
    cmyk,
    encoded,
    fixed,
    lut16,
    noise,
    pillow,
    read,
    scene,
    table_profile,
    written,
)

DISPLAY_P3 = make_profile("P3", P3_PRIMARIES, None)
ADOBE_RGB = make_profile("Adobe", ADOBE_PRIMARIES, 563 / 256)
PROPHOTO = make_profile("ProPhoto", PROPHOTO_PRIMARIES, 1.8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LEVEL = 1 / 255


def cms(pixels: np.ndarray, icc: bytes, *, back: bool = False) -> np.ndarray:
    """LittleCMS's answer for (H, W, 3) uint8, relative colorimetric."""
    profiles = [ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")]
    image = ImageCms.profileToProfile(Image.fromarray(pixels), *(profiles[::-1] if back else profiles), 1)
    assert image is not None
    return np.asarray(image)


def floats(pixels: np.ndarray) -> np.ndarray:
    return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)


@pytest.mark.parametrize("icc", [DISPLAY_P3, ADOBE_RGB, PROPHOTO], ids=["P3", "Adobe", "ProPhoto"])
def test_agrees_with_littlecms_both_ways(icc: bytes) -> None:
    pixels = noise(64, 64, 3, np.uint8)
    transform = transform_for(icc)
    assert transform is not None
    to = transform.to_srgb(floats(pixels))
    assert to.dtype == np.float32
    assert np.abs(to - floats(cms(pixels, icc))).max() < 1.5 * LEVEL
    back = transform.from_srgb(floats(pixels))
    assert back.dtype == np.float32
    assert np.abs(back - floats(cms(pixels, icc, back=True))).max() < 1.5 * LEVEL


@pytest.mark.parametrize("icc", [DISPLAY_P3, ADOBE_RGB, PROPHOTO], ids=["P3", "Adobe", "ProPhoto"])
def test_colours_come_back(icc: bytes) -> None:
    transform = transform_for(icc)
    assert transform is not None
    colours = noise(32, 32, 3, np.uint16).astype(np.float32) / 65535
    whole = transform.from_srgb(transform.to_srgb(colours, clip=False))
    assert np.abs(whole - colours).max() < 0.1 * LEVEL
    inside = transform.to_srgb(transform.from_srgb(colours))
    assert np.abs(inside - colours).max() < 0.1 * LEVEL


def test_published_values_of_display_p3() -> None:
    """CSS Color 4's sample conversions: P3's red and green in sRGB's coordinates."""
    transform = transform_for(DISPLAY_P3)
    assert transform is not None
    corners = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    expected = [[[1.0930, -0.2267, -0.1501], [-0.5116, 1.0183, -0.3107]]]
    np.testing.assert_allclose(transform.to_srgb(corners, clip=False), expected, atol=0.004)
    clipped = transform.to_srgb(corners)
    assert clipped.min() == 0
    assert clipped.max() == 1


@pytest.mark.parametrize("icc", [DISPLAY_P3, ADOBE_RGB, PROPHOTO], ids=["P3", "Adobe", "ProPhoto"])
def test_neutral_stays_neutral(icc: bytes) -> None:
    transform = transform_for(icc)
    assert transform is not None
    grays = np.repeat(np.linspace(0, 1, 50, dtype=np.float32)[None, :, None], 3, axis=2)
    for answer in (transform.to_srgb(grays), transform.from_srgb(grays)):
        assert np.ptp(answer, axis=2).max() < 1e-5
        np.testing.assert_allclose(answer[0, [0, -1]], [[0] * 3, [1] * 3], atol=1e-6)


@pytest.mark.parametrize(
    "icc", [b"", SRGB, make_profile("sRGB", SRGB_PRIMARIES, None)], ids=["none", "littlecms", "table"]
)
def test_srgb_needs_no_transform(icc: bytes) -> None:
    assert transform_for(icc) is None
    assert read(encoded(scene(), "PNG", icc_profile=icc)).colour is None


@pytest.mark.parametrize(
    ("kind", "numbers", "function"),
    [
        (0, [2.2], lambda x: x**2.2),
        (1, [2.2, 0.9, 0.1], lambda x: (0.9 * x + 0.1) ** 2.2),
        (2, [2.0, 0.8, 0.1, 0.05], lambda x: (0.8 * x + 0.1) ** 2 + 0.05),
        (3, [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045], None),
        (4, [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0], None),
    ],
)
def test_parametric_curves(kind: int, numbers: list[float], function) -> None:
    curve = b"para" + struct.pack(">IHH", 0, kind, 0) + fixed(numbers)
    tags = {f"{c}TRC".encode(): curve for c in "rgb"}
    tags |= {
        f"{c}XYZ".encode(): b"XYZ " + bytes(4) + fixed(xyz)
        for c, xyz in zip("rgb", P3_PRIMARIES, strict=True)
    }
    transform = transform_for(table_profile(b"RGB ", tags))
    assert transform is not None
    grays = np.repeat(np.linspace(0, 1, 50, dtype=np.float32)[None, :, None], 3, axis=2)
    expected = grays
    if function is not None:
        linear = function(grays.astype(float))
        expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(transform.to_srgb(grays), expected, atol=0.5 * LEVEL)


@pytest.mark.parametrize("kind", [1, 2])
def test_a_parametric_curve_without_a_slope_is_damage(kind: int) -> None:
    curve = b"para" + struct.pack(">IHH", 0, kind, 0) + fixed([2.2, 0.0, 0.1, 0.0])
    tags = {f"{c}{part}".encode(): curve for c in "rgb" for part in ("TRC", "XYZ")}
    picture = read(encoded(scene(), "PNG", icc_profile=table_profile(b"RGB ", tags)))
    assert "its colours were taken for sRGB" in picture.notices[0]


def table_only_p3() -> bytes:
    """Display P3 with gamma 2, said in look-up tables alone."""
    steps = np.linspace(0, 1, 1024)
    half = 32768 / 65535
    corners = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)], float)
    to_xyz = lut16([steps**2] * 3, corners @ np.array(P3_PRIMARIES) * half, [np.array([0.0, 1.0])] * 3)
    inverse = np.linalg.inv(np.array(P3_PRIMARIES).T)
    spread = np.interp(steps, [0, half, 1], [0, 1, 1])
    from_xyz = lut16([spread] * 3, corners, [steps**0.5] * 3, inverse)
    tags = {b"A2B0": to_xyz, b"A2B1": to_xyz, b"B2A0": from_xyz, b"B2A1": from_xyz}
    return table_profile(b"RGB ", {**tags, b"wtpt": b"XYZ " + bytes(4) + fixed(D50)})


def test_profile_of_tables_agrees_with_the_same_as_matrix() -> None:
    tables = transform_for(table_only_p3())
    assert isinstance(tables, TableTransform)
    matrix = transform_for(make_profile("P3, gamma 2", P3_PRIMARIES, 2.0))
    assert matrix is not None
    colours = floats(noise(40, 40, 3, np.uint8, seed=3) // 2 + 64)
    assert np.abs(tables.to_srgb(colours) - matrix.to_srgb(colours)).max() < 2 * LEVEL
    assert np.abs(tables.from_srgb(colours) - matrix.from_srgb(colours)).max() < 2 * LEVEL


@pytest.mark.parametrize("damage", ["cut", "curve", "singular", "kind"])
def test_damaged_profile_is_kept_with_a_notice(damage: str) -> None:
    icc = DISPLAY_P3
    if damage == "cut":
        icc = icc[:400]
    elif damage == "curve":
        icc = icc.replace(b"curv", b"abcd")
    elif damage == "singular":
        icc = make_profile("flat", (P3_PRIMARIES[0],) * 3, None)
    else:
        icc = table_profile(b"CMYK", {})
    picture = read(encoded(scene(), "PNG", icc_profile=icc))
    assert picture.colour is None
    assert "its colours were taken for sRGB" in picture.notices[0]
    assert pillow(written(picture)).info["icc_profile"] == icc


def gray_profile(gamma: float) -> bytes:
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    return table_profile(b"GRAY", {b"kTRC": curve, b"wtpt": b"XYZ " + bytes(4) + fixed(D50)})


def test_gray_profile() -> None:
    samples = scene(channels=1)
    picture = read(encoded(samples[..., 0], "PNG", icc_profile=gray_profile(1.0)))
    assert picture.gray
    assert picture.colour is not None
    srgb = picture.colour.to_srgb(floats(picture.pixels))
    linear = samples / 255
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb, np.repeat(expected, 3, axis=2), atol=1e-4)
    np.testing.assert_allclose(picture.colour.from_srgb(srgb), floats(picture.pixels), atol=1e-4)
    assert pillow(written(picture, "tiff")).info["icc_profile"] == gray_profile(1.0)


def test_gray_profile_is_applied_where_gray_cannot_be_stored() -> None:
    """A gray profile on RGB pixels is invalid: readers would ignore it, and show other grays."""
    picture = read(encoded(scene(channels=1)[..., 0], "PNG", icc_profile=gray_profile(1.0)))
    assert picture.colour is not None
    result = pillow(written(picture, "webp", quality=100))
    assert "icc_profile" not in result.info
    expected = picture.colour.to_srgb(floats(picture.pixels)) * 255
    assert np.abs(np.asarray(result) - expected).mean() < 2


@pytest.mark.parametrize("icc", [DISPLAY_P3, PROPHOTO], ids=["P3", "ProPhoto"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bmp_holds_no_profile_and_becomes_srgb(icc: bytes, dtype: type) -> None:
    samples = scene()
    deep = samples if dtype == np.uint8 else samples.astype(np.uint16) * 257
    picture = read(written(photo.Photo(pixels=deep, info=photo.PhotoInfo(icc=icc)), "png"))
    result = np.asarray(pillow(written(replace(picture, info=photo.PhotoInfo("BMP", icc=icc)))))
    assert np.abs(result.astype(int) - cms(samples, icc)).max() <= 2


def test_pixels_stay_in_the_files_own_space() -> None:
    picture = read(encoded(scene(), "PNG", icc_profile=PROPHOTO))
    np.testing.assert_array_equal(picture.pixels, scene())
    assert picture.colour is not None


def test_camera_that_marks_adobe_rgb_by_exif_alone() -> None:
    exif = b"Exif\0\0" + camera_exif(interop=b"R03\0")
    picture = read(encoded(scene(), "JPEG", exif=exif))
    assert picture.colour is not None
    colours = floats(noise(16, 16, 3, np.uint8))
    expected = transform_for(ADOBE_RGB)
    assert expected is not None
    np.testing.assert_allclose(picture.colour.to_srgb(colours), expected.to_srgb(colours), atol=1e-6)
    stripped = pillow(written(picture, metadata="strip"))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(stripped.info["icc_profile"]))
    assert ImageCms.getProfileDescription(profile).strip() == "Adobe RGB (1998) compatible"


def test_other_cameras_are_srgb() -> None:
    assert read(encoded(scene(), "JPEG", exif=b"Exif\0\0" + camera_exif())).colour is None


def test_cmyk_jpeg_by_its_own_profile() -> None:
    """A made-up press whose inks, alone, print known colours."""
    shown = {(255, 0, 0, 0): (0, 150, 220), (0, 255, 0, 0): (220, 20, 120), (0, 0, 255, 0): (250, 230, 10)}
    nodes = []
    for index in range(16):
        ink = tuple(255 * (index >> (3 - i) & 1) for i in range(4))
        colour = np.array(shown.get(ink, (255, 255, 255) if index == 0 else (0, 0, 0))) / 255
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        nodes.append(linear @ np.array(SRGB_PRIMARIES) * 32768 / 65535)
    line = np.array([0.0, 1.0])
    tags = {b"A2B0": lut16([line] * 4, np.array(nodes), [line] * 3), b"wtpt": b"XYZ " + bytes(4) + fixed(D50)}
    icc = table_profile(b"CMYK", {**tags, b"A2B1": tags[b"A2B0"]})
    for ink, colour in shown.items():
        file = io.BytesIO()
        image = Image.new("CMYK", (32, 32), ink)
        image.save(file, "JPEG", quality=100, subsampling=0, icc_profile=icc)
        picture = read(file.getvalue())
        assert np.abs(picture.pixels[16, 16].astype(int) - colour).max() <= 4
        assert picture.notices == [
            "it was converted from CMYK to sRGB by its own profile, and is written as RGB"
        ]
        result = pillow(written(picture))
        assert result.mode == "RGB"
        assert "icc_profile" not in result.info


@pytest.mark.parametrize(
    ("at", "content"), [(128, b"\0\xff\xff\xff"), (8, b"\x09\0\0\0"), (129, b""), (None, b"")]
)
def test_cmyk_with_an_unusable_profile_is_converted_simply(at: int | None, content: bytes) -> None:
    """An impossible count of tags, an impossible version, one cut short, and one without any table."""
    icc = table_profile(b"CMYK", {b"wtpt": b"XYZ " + bytes(4) + fixed(D50)})
    if at is not None:
        icc = icc[:at] + content + (icc[at + 4 :] if content else b"")
    image = cmyk(noise(16, 16, 4, np.uint8))
    file = io.BytesIO()
    image.save(file, "TIFF", icc_profile=icc)
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.notices == [
        "it was converted from CMYK to sRGB by a simple rule, for want of a profile that can be used, "
        "and is written as RGB"
    ]


def test_display_p3_by_code_points_of_a_png() -> None:
    picture = read(encoded(scene(), "PNG", pnginfo=_chunk(b"cICP", bytes([12, 13, 0, 1]))))
    assert picture.colour is not None
    expected = transform_for(DISPLAY_P3)
    assert expected is not None
    colours = floats(noise(16, 16, 3, np.uint8))
    np.testing.assert_allclose(picture.colour.to_srgb(colours), expected.to_srgb(colours), atol=1e-6)


def test_hdr_is_named() -> None:
    picture = read(encoded(scene(), "PNG", pnginfo=_chunk(b"cICP", bytes([9, 16, 0, 1]))))
    assert picture.notices == ["it is an HDR picture (PQ), and was treated as an SDR one"]


def _chunk(name: bytes, content: bytes) -> object:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add(name, content)
    return info
