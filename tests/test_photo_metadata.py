"""All that comes with a picture goes with it, tag by tag, and stays true."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from dehaze import photo
from dehaze.photo.icc import make_profile
from photo_files import (
    CAPTION,
    MAKER_NOTE,
    P3_PRIMARIES,
    THUMBNAIL,
    camera_exif,
    encoded,
    exif_tags,
    lay_out,
    photoshop_resources,
    pillow,
    read,
    scene,
    with_segments,
    written,
    xmp_packet,
)

PROFILE = make_profile("Display P3 by hand", P3_PRIMARIES, 2.2)
FAX_XMP = xmp_packet(6).replace(
    b"tiff:ImageWidth", b'tiff:XResolution="204/1" tiff:YResolution="98/1" tiff:ImageWidth'
)
FORMATS = ["jpg", "png", "webp", "avif", "tiff"]
PILLOW_NAMES = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "tiff": "TIFF"}


def camera_file(format: str) -> bytes:
    """A file with EXIF, profile, XMP and resolution, made without the code under test."""
    exif = camera_exif()
    options: dict[str, object] = {"exif": b"Exif\0\0" + exif, "icc_profile": PROFILE, "dpi": (240, 240)}
    if format == "png":
        options["exif"] = exif
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp_packet().decode())
    elif format == "tiff":
        options["exif"] = camera_exif(xmp=xmp_packet())
    else:
        options["xmp"] = xmp_packet()
    if format == "webp":
        options["lossless"] = True
    return encoded(scene(), PILLOW_NAMES[format], **options)


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_tag_goes_from_every_format_to_every_format(source: str, target: str) -> None:
    data = camera_file(source)
    before = exif_tags(data)
    assert before["exif"][0x927C] == MAKER_NOTE
    result = written(read(data), target)
    assert result[:4] != data[:4] or source == target
    after = exif_tags(result)
    storage = {254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 339, 700, 34675, 0x0112}
    resolution = {0x011A, 0x011B, 0x0128}
    for part in ("main", "exif", "gps"):
        expected = {tag: v for tag, v in before[part].items() if tag not in storage | resolution}
        found = {tag: v for tag, v in after[part].items() if tag not in storage | resolution}
        assert found == expected
    assert len(expected) == 4
    assert after["thumbnail"] == {}
    image = pillow(result)
    assert image.info["icc_profile"] == PROFILE
    packet = image.info.get("xmp") or image.tag_v2[700]
    assert b'xmp:Rating="4"' in packet


@pytest.mark.parametrize(
    ("source", "target"), [("jpg", "png"), ("png", "tiff"), ("tiff", "jpg"), ("jpg", "jpg")]
)
def test_resolution_is_kept(source: str, target: str) -> None:
    dpi = pillow(written(read(camera_file(source)), target)).info["dpi"]
    assert dpi == pytest.approx((240, 240), abs=0.02)


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_resolution_is_kept_where_only_exif_can_state_it(format: str) -> None:
    picture = read(encoded(scene(), "JPEG", dpi=(300, 150)))
    result = written(picture, format)
    assert read(result).info.dpi == (300, 150)
    assert pillow(result).getexif()[0x011A] == 300
    assert not pillow(written(picture, format, metadata="strip")).getexif()


def test_resolution_that_only_exif_states_is_found() -> None:
    data = encoded(scene(), "WEBP", exif=camera_exif())
    assert read(data).info.dpi == (300, 300)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpg", "png", "webp", "avif"])
def test_maker_note_stays_at_its_place(format: str, order: str) -> None:
    exif = camera_exif(6, order)
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0" + exif)
    result = written(read(data), format)
    start = result.index(b"II*\0" if order == "<" else b"MM\0*")
    assert result.index(MAKER_NOTE) - start == exif.index(MAKER_NOTE)


def test_only_orientation_and_thumbnail_change_in_the_exif_bytes() -> None:
    before = camera_exif(3)
    after = read(encoded(scene(), "JPEG", exif=b"Exif\0\0" + before)).info.exif
    plain = camera_exif(1, thumbnail=False)
    assert after == plain
    assert THUMBNAIL in before


@pytest.mark.parametrize("format", FORMATS)
def test_stale_thumbnail_is_nowhere_in_the_result(format: str) -> None:
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0" + camera_exif())
    data = with_segments(data, (0xED, b"Photoshop 3.0\0" + photoshop_resources()))
    assert THUMBNAIL in data
    result = written(read(data), format)
    assert b"old hazy thumbnail" not in result
    assert b"Nebel AG" in result


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_then_reset(orientation: int, order: str) -> None:
    pixels = scene()
    stored = Image.fromarray(pixels)
    exif = camera_exif(orientation, order)
    file = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp_packet(orientation).decode())
    stored.save(file, "PNG", exif=exif, pnginfo=info)
    expected = _upright(pixels, orientation)
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.pixels.flags.c_contiguous
    result = written(picture)
    image = pillow(result)
    np.testing.assert_array_equal(np.asarray(image), expected)
    tags = exif_tags(result)
    assert tags["main"][0x0112] == 1
    height, width = expected.shape[:2]
    assert (tags["exif"][0xA002], tags["exif"][0xA003]) == (width, height)
    packet = image.info["xmp"]
    assert b'tiff:Orientation="1"' in packet
    assert f'ImageWidth="{width}"'.encode() in packet
    assert f'ImageLength="{height}"'.encode() in packet
    assert b"stale" not in packet


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.32, 4.6.5: where the stored row 0 and column 0 belong."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels.swapaxes(0, 1)[:, ::-1],
        7: pixels.swapaxes(0, 1)[::-1, ::-1],
        8: pixels.swapaxes(0, 1)[::-1],
    }[orientation]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_orientation_of_all_channels_at_16_bits(channels: int) -> None:
    samples = scene(channels=channels, dtype=np.uint16)
    upright = _upright(samples, 6)
    picture = photo.Photo(
        pixels=np.repeat(samples[..., :1], 3, axis=2) if channels < 3 else samples[..., :3].copy(),
        alpha=samples[..., -1].copy() if channels in (2, 4) else None,
        gray=channels < 3,
        info=photo.PhotoInfo(exif=camera_exif(6)),
    )
    turned = read(written(picture, "png"))
    np.testing.assert_array_equal(turned.pixels[..., 0], upright[..., 0])
    if channels in (2, 4):
        np.testing.assert_array_equal(turned.alpha, upright[..., -1])


def test_orientation_of_a_tiff() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, scene(), photometric="rgb", extratags=[(274, 3, 1, 8, True)])
    picture = read(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, _upright(scene(), 8))
    with tifffile.TiffFile(io.BytesIO(written(picture))) as result:
        assert result.pages[0].tags[274].value == 1


@pytest.mark.parametrize("target", ["jpg", "tiff"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turn_exchanges_sides_and_resolutions(source: str, target: str) -> None:
    """A fax's page on its side: 204 x 98 pixels an inch."""
    exif = camera_exif(6, dpi=(204, 98), xmp=FAX_XMP if source == "TIFF" else b"")
    data = encoded(scene(), source, exif=exif if source != "JPEG" else b"Exif\0\0" + exif, dpi=(204, 98))
    picture = read(data)
    assert picture.pixels.shape == (64, 48, 3)
    assert picture.info.dpi == pytest.approx((98, 204), abs=0.02)
    result = written(picture, target)
    tags = exif_tags(result)
    assert (tags["exif"][0xA002], tags["exif"][0xA003]) == (48, 64)
    assert (tags["main"][0x011A], tags["main"][0x011B]) == pytest.approx((98, 204), abs=0.02)
    assert pillow(result).info["dpi"] == pytest.approx((98, 204), abs=0.02)
    if source == "TIFF":
        for said in (b'XResolution="98/1"', b'YResolution="204/1"', b'ImageWidth="48"', b'ImageLength="64"'):
            assert b"tiff:" + said in result


def test_a_turn_exchanges_the_sides_of_the_first_directory_too() -> None:
    sides = {0x0100: (4, struct.pack("<I", 64)), 0x0101: (4, struct.pack("<I", 48))}
    exif = b"II*\0\x08\0\0\0" + lay_out({**sides, 0x0112: (3, struct.pack("<H", 6))}, 8, "<")[0]
    main = exif_tags(written(read(encoded(scene(), "PNG", exif=exif))))["main"]
    assert (main[0x0100], main[0x0101]) == (48, 64)


def test_what_xmp_says_of_a_tiffs_orientation_does_not_count() -> None:
    """The tag decides, and a picture that is not turned keeps its sides."""
    data = encoded(scene(), "TIFF", exif=camera_exif(1, xmp=FAX_XMP))
    picture = read(data)
    np.testing.assert_array_equal(picture.pixels, scene())
    tags = exif_tags(written(picture))
    assert (tags["exif"][0xA002], tags["exif"][0xA003]) == (64, 48)
    assert picture.info.xmp == FAX_XMP.replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"').replace(
        b"<xmp:Thumbnails>stale</xmp:Thumbnails>", b""
    )


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "JPEG"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_lossy_formats(format: str, orientation: int) -> None:
    data = encoded(scene(), format, exif=b"Exif\0\0" + camera_exif(orientation), quality=95)
    picture = read(data)
    assert np.abs(picture.pixels.astype(int) - _upright(scene(), orientation)).mean() < 4
    again = read(written(picture))
    assert np.abs(again.pixels.astype(int) - picture.pixels).mean() < 4


def test_heic_is_turned_once() -> None:
    library = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    exif = b"Exif\0\0" + camera_exif(6, width=64, height=48)
    image = library.from_bytes("RGB", (64, 48), scene().tobytes())
    image[0].info["exif"] = exif
    image.save(file, quality=100, chroma=444, icc_profile=PROFILE, xmp=xmp_packet(6))
    picture = read(file.getvalue())
    assert np.abs(picture.pixels.astype(int) - _upright(scene(), 6)).mean() < 4
    result = written(picture)
    again = read(result)
    assert again.info.format == "HEIC"
    assert np.abs(again.pixels.astype(int) - picture.pixels).mean() < 4
    assert again.info.icc == PROFILE
    upright = bytearray(camera_exif(1, width=48, height=64, thumbnail=False))
    x = upright.index(struct.pack("<HH", 0x011A, 5)) + 8  # the two resolutions' pointers changed places
    upright[x : x + 4], upright[x + 12 : x + 16] = upright[x + 12 : x + 16], upright[x : x + 4]
    assert again.info.exif == upright
    assert b'tiff:Orientation="1"' in again.info.xmp


def test_xmp_no_longer_speaks_of_pictures_that_are_gone() -> None:
    """Ultra HDR and motion photos describe a gain map and a film behind the picture."""
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description hdrgm:Version="1.0" GCamera:MotionPhoto="1"'
        b' GCamera:MotionPhotoVersion="1" GCamera:SpecialTypeID="kept" xmp:Rating="5">\n<Container:Directory>'
        b'<rdf:Seq><Container:Item Item:Semantic="GainMap" Item:Length="77"/></rdf:Seq></Container:Directory>'
        b"</rdf:Description></x:xmpmeta>"
    )
    kept = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description GCamera:SpecialTypeID="kept" xmp:Rating="5">\n'
    )
    assert read(encoded(scene(), "JPEG", xmp=packet)).info.xmp == kept + b"</rdf:Description></x:xmpmeta>"


def test_orientation_that_only_xmp_states_is_applied() -> None:
    data = encoded(scene(), "WEBP", lossless=True, xmp=xmp_packet(6))
    np.testing.assert_array_equal(read(data).pixels, _upright(scene(), 6))


@pytest.mark.parametrize("target", ["jpg", "tiff"])
def test_captions_are_kept(target: str) -> None:
    data = with_segments(encoded(scene(), "JPEG"), (0xED, b"Photoshop 3.0\0" + photoshop_resources()))
    result = written(read(data), target)
    assert CAPTION in result
    image = pillow(result)
    blocks = image.info["photoshop"] if target == "jpg" else image.get_photoshop_blocks()
    assert set(blocks) == {0x0404}


def test_captions_of_a_tiff_reach_a_jpeg() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, scene(), photometric="rgb", extratags=[(33723, 7, len(CAPTION), CAPTION, True)])
    assert pillow(written(read(file.getvalue()), "jpg")).info["photoshop"][0x0404] == CAPTION


def test_captions_that_do_not_fit_are_named() -> None:
    picture = read(
        with_segments(encoded(scene(), "JPEG"), (0xED, b"Photoshop 3.0\0" + photoshop_resources()))
    )
    written(picture, "webp")
    assert picture.notices == ["metadata left out, for which WEBP has no place: IPTC and Photoshop data"]


def test_jpeg_comment_and_extended_xmp_stay() -> None:
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 4, 0) + b"more"
    data = with_segments(
        encoded(scene(), "JPEG", xmp=xmp_packet()), (0xE1, extension), (0xFE, b"seen from the pass")
    )
    result = written(read(data))
    assert extension in result
    assert pillow(result).info["comment"] == b"seen from the pass"


def test_png_text_and_colour_chunks_stay() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    info.add_text("Description", "a bay in fog", zip=True)
    info.add(b"gAMA", struct.pack(">I", 45455))
    image = pillow(written(read(encoded(scene(), "PNG", pnginfo=info))))
    assert image.text == {"Author": "somebody", "Description": "a bay in fog"}
    assert image.info["gamma"] == pytest.approx(0.45455)


def test_exif_that_imagemagick_hid_in_text_is_found() -> None:
    digits = (b"Exif\0\0" + camera_exif(6)).hex()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2:8d}\n{digits}\n", zip=True)
    picture = read(encoded(scene(), "PNG", pnginfo=info))
    np.testing.assert_array_equal(picture.pixels, _upright(scene(), 6))
    assert exif_tags(written(picture))["main"][0x010F] == "Nebel AG"


def raw_profile(kind: str, content: bytes, *, compress: bool = True) -> bytes:
    """A PNG file with a text chunk as ImageMagick and ExifTool write them."""
    digits = content.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    info = PngImagePlugin.PngInfo()
    text = f"\n{kind}\n{len(content):8d}\n{lines}\n"
    info.add_text(f"Raw profile type {kind}", text, zip=compress)
    return encoded(scene(), "PNG", pnginfo=info)


@pytest.mark.parametrize("kind", ["iptc", "8bim"])
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("compress", [True, False])
def test_captions_that_a_png_hides_in_text_are_kept(kind: str, bare: bool, compress: bool) -> None:
    data = raw_profile(kind, CAPTION if bare else photoshop_resources(), compress=compress)
    for path in (("jpg",), ("png", "jpg"), ("tiff", "png", "png", "jpg")):
        picture = read(data)
        for format in path:
            result = written(picture, format)
            picture = read(result)
        assert picture.notices == []
        assert pillow(result).info["photoshop"] == {0x0404: CAPTION}


def test_captions_are_written_to_a_png_as_imagemagick_does() -> None:
    resources = read(raw_profile("8bim", photoshop_resources() * 2)).info.photoshop
    text = pillow(written(read(raw_profile("8bim", resources)))).text["Raw profile type 8bim"]
    assert text == pillow(raw_profile("8bim", resources)).text["Raw profile type 8bim"]


@pytest.mark.parametrize("kind", ["xmp", "APP1"])
def test_xmp_that_a_png_hides_in_text_is_kept(kind: str) -> None:
    start = b"http://ns.adobe.com/xap/1.0/\0" if kind == "APP1" else b""
    picture = read(raw_profile(kind, start + xmp_packet(6)))
    np.testing.assert_array_equal(picture.pixels, _upright(scene(), 6))
    assert b'xmp:Rating="4"' in pillow(written(picture)).info["xmp"]


def test_profiles_of_other_kinds_stay_as_they_are() -> None:
    data = raw_profile("generic", b"whatever")
    assert pillow(written(read(data))).text == pillow(data).text


def test_large_profile_goes_through_jpeg_in_pieces() -> None:
    profile = PROFILE + bytes(200_000)
    profile = struct.pack(">I", len(profile)) + profile[4:]
    picture = replace(read(encoded(scene(), "PNG")), info=photo.PhotoInfo(icc=profile))
    assert pillow(written(picture, "jpg")).info["icc_profile"] == profile
    assert read(written(picture, "jpg")).info.icc == profile
    assert read(written(picture, "png")).info.icc == profile


def test_exif_too_large_for_jpeg_loses_its_largest_entries_only() -> None:
    exif = camera_exif(maker_note=bytes(70_000))
    picture = read(encoded(scene(), "PNG", exif=exif))
    tags = exif_tags(written(picture, "jpg"))
    assert tags["exif"][0xA434] == "Fog Lens 35mm"
    assert 0x927C not in tags["exif"]
    assert picture.notices == ["its largest EXIF entries were left out: JPEG holds 64 KB"]


def test_strip_keeps_profile_and_resolution_alone() -> None:
    for format in FORMATS:
        result = written(read(camera_file(format)), metadata="strip")
        image = pillow(result)
        assert image.info["icc_profile"] == PROFILE
        assert b"Nebel AG" not in result
        assert b"xmp:Rating" not in result
        assert exif_tags(result)["gps"] == {}
        if format not in ("webp", "avif"):
            assert image.info["dpi"] == pytest.approx((240, 240), abs=0.02)


def test_damaged_exif_is_left_out_with_a_notice() -> None:
    picture = read(encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"))
    assert picture.info.exif == b""
    assert picture.notices == ["its EXIF data is damaged and was left out"]


def test_exif_whose_thumbnail_claims_to_lie_over_it_is_left_out_with_a_notice() -> None:
    exif = bytearray(camera_exif(6))
    start = struct.pack("<HHII", 0x0201, 4, 1, len(exif) - len(THUMBNAIL))
    at = exif.index(start)
    exif[at : at + 24] = struct.pack("<HHIIHHII", 0x0201, 4, 1, 8, 0x0202, 4, 1, len(exif))
    picture = read(encoded(scene(), "PNG", exif=bytes(exif)))
    np.testing.assert_array_equal(picture.pixels, _upright(scene(), 6))
    assert picture.info.exif == b""
    assert picture.notices == ["its EXIF data is damaged and was left out"]


def test_a_pointer_to_nowhere_costs_only_what_it_points_to() -> None:
    exif = bytearray(camera_exif(6, thumbnail=False))
    entry = exif.index(struct.pack("<HHI", 0x8769, 4, 1))
    struct.pack_into("<II", exif, entry + 4, 2**16, 2**31)
    picture = read(encoded(scene(), "PNG", exif=bytes(exif)))
    tags = exif_tags(written(picture))
    assert (tags["main"][0x010F], tags["main"][0x0112], tags["exif"]) == ("Nebel AG", 1, {})


@pytest.mark.parametrize("seed", range(30))
def test_no_damage_to_exif_stops_a_picture(seed: int) -> None:
    """Whatever bytes EXIF has, the picture is read and written."""
    random = np.random.default_rng(seed)
    exif = bytearray(camera_exif(6))
    for position in random.integers(0, len(exif), 12):
        exif[position] = random.integers(0, 256)
    picture = read(encoded(scene(), "WEBP", exif=bytes(exif), lossless=True))
    assert sorted(picture.pixels.shape) == [3, 48, 64]
    for format in ("jpg", "png", "tiff", "avif"):
        assert sorted(read(written(picture, format)).pixels.shape) == [3, 48, 64]


@pytest.mark.parametrize(
    ("marker", "start", "sound"),
    [
        (0xE1, b"Exif\0\0", camera_exif(6, maker_note=b"m").replace(THUMBNAIL, b"")),
        (0xE2, b"ICC_PROFILE\0\1\1", PROFILE),
        (0xED, b"Photoshop 3.0\0", photoshop_resources()),
    ],
)
def test_no_damage_to_a_description_stops_a_picture(marker: int, start: bytes, sound: bytes) -> None:
    """Numbers become the smallest and the largest there are, and the end is cut off."""
    random, jpeg = np.random.default_rng(1), encoded(scene(2, 3), "JPEG")
    for _ in range(100):
        damaged = bytearray(sound)
        for at in random.integers(0, len(sound) // 2, 2) * 2:
            number = struct.pack(random.choice(["<I", ">I"]), random.choice([0, 1, 8, 2**16, 2**32 - 1]))
            damaged[at : at + 4] = number
        segment = start + damaged[: random.integers(len(sound) // 2, 2 * len(sound))]
        assert read(with_segments(jpeg, (marker, segment))).pixels.size == 18


def test_exif_that_says_the_same_bytes_a_thousand_times_does_not_grow() -> None:
    """Each of 1,000 entries points at the same 10 kB: 10 MB, if all were believed."""
    at = 8 + 2 + 1000 * 12 + 4
    entries = b"".join(struct.pack("<HHII", 0xC000 + i, 7, 10_000, at) for i in range(1000))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 1000) + entries + bytes(4) + bytes(10_000)
    assert len(written(read(encoded(scene(), "PNG", exif=exif)), "tiff")) < 3 * len(exif)


def test_photoshop_layers_are_left_out_with_a_notice() -> None:
    file = io.BytesIO()
    tifffile.imwrite(
        file, scene(), photometric="rgb", extratags=[(37724, 7, 20, b"Adobe Photoshop Docu", True)]
    )
    picture = read(file.getvalue())
    assert "Photoshop layers were left out" in picture.notices[0]
    assert b"Docu" not in written(picture)


def test_a_pixel_edit_leaves_the_rest_alone() -> None:
    """The way every caller works: read, change the pixels, write."""
    picture = read(camera_file("png"))
    brighter = replace(picture, pixels=255 - picture.pixels)
    again = read(written(brighter))
    np.testing.assert_array_equal(again.pixels, 255 - scene())
    assert again.info == picture.info
