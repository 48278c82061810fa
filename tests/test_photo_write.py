"""What is written is what was asked for."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, JpegImagePlugin

from dehaze import photo
from dehaze.errors import UsageError
from dehaze.photo.threads import workers
from photo_files import encoded, noise, pillow, read, save, scene, written


def make(samples: np.ndarray, **fields: object) -> photo.Photo:
    """A photo of (H, W, C) samples: gray, gray and alpha, RGB or RGBA."""
    channels = samples.shape[2]
    return photo.Photo(
        pixels=np.repeat(samples[..., :1], 3, axis=2) if channels < 3 else samples[..., :3].copy(),
        alpha=samples[..., -1].copy() if channels in (2, 4) else None,
        gray=channels < 3,
        **fields,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (61, 47), (300, 211)])
def test_png_and_tiff_are_exact_to_other_readers(dtype: type, channels: int, shape: tuple[int, int]) -> None:
    samples = noise(*shape, channels, dtype)
    samples[: shape[0] // 2] //= 7
    picture = make(samples)
    png = cv2.imdecode(np.frombuffer(written(picture, "png"), np.uint8), cv2.IMREAD_UNCHANGED)
    png = png.reshape(*shape, -1)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3] if channels == 4 else [0, 3]}[png.shape[2]]
    np.testing.assert_array_equal(png[..., order], samples)
    tiff = tifffile.imread(io.BytesIO(written(picture, "tiff")))
    np.testing.assert_array_equal(tiff.reshape(samples.shape), samples)


def test_no_more_threads_compress_than_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    for allowed, expected in (("1", 1), ("3", 3), ("64", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", allowed)
        assert workers() == expected


def test_png_is_sound_and_no_larger_than_pillows() -> None:
    """Smooth with a little noise, as photos are; `Image.verify` checks every checksum."""
    smooth = cv2.resize(noise(12, 16, 3, np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    samples = (smooth // 2 + noise(480, 640, 3, np.uint8) // 64).astype(np.uint8)
    data = written(make(samples), "png")
    Image.open(io.BytesIO(data)).verify()
    np.testing.assert_array_equal(np.asarray(pillow(data)), samples)
    assert len(data) < 1.05 * len(encoded(samples, "PNG"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_tiff_is_read_by_pillow(mode: str) -> None:
    samples = scene(channels=3 if mode == "RGB" else 1)
    image = pillow(written(make(samples), "tiff"))
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image).reshape(samples.shape), samples)


def test_auto_depth_keeps_16_bits_where_the_format_can() -> None:
    for format, depth in (("png", 16), ("tiff", 16), ("jpg", 8), ("webp", 8), ("avif", 8)):
        picture = make(noise(20, 30, 3, np.uint16))
        assert read(written(picture, format)).pixels.dtype == f"uint{depth}"
        assert any("8 bits a sample" in notice for notice in picture.notices) == (depth == 8)
        asked = make(noise(20, 30, 3, np.uint16))
        written(asked, format, bit_depth=8)
        assert asked.notices == []


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_asked_depth(format: str) -> None:
    deep, shallow = make(noise(20, 30, 4, np.uint16)), make(noise(20, 30, 4, np.uint8))
    less = read(written(deep, format, bit_depth=8))
    assert less.pixels.dtype == np.uint8
    np.testing.assert_array_equal(less.pixels, np.rint(deep.pixels / 257))
    np.testing.assert_array_equal(less.alpha, np.rint(deep.alpha / 257))
    more = read(written(shallow, format, bit_depth=16))
    np.testing.assert_array_equal(more.pixels, shallow.pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(more.alpha, shallow.alpha.astype(np.uint16) * 257)


@pytest.mark.parametrize("format", ["jpg", "png", "avif", "tiff"])
def test_gray_is_written_gray(format: str) -> None:
    image = pillow(written(make(scene(channels=1)), format))
    assert image.mode == "L"


def test_gray_photo_that_got_a_tint_is_written_as_its_luma() -> None:
    tinted = make(scene(channels=1))
    tinted.pixels = scene()
    expected = scene() @ [0.299, 0.587, 0.114]
    assert np.abs(np.asarray(pillow(written(tinted, "png"))) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_over_white_in_a_jpeg(dtype: type) -> None:
    highest = np.iinfo(dtype).max
    samples = np.zeros((32, 32, 4), dtype)
    samples[:, 16:, 3] = highest // 2 + 1
    picture = make(samples)
    result = np.asarray(pillow(written(picture, "jpg", quality=100)))
    assert result[16, 4].tolist() == [255, 255, 255]
    assert np.abs(result[16, 28].astype(int) - 127).max() <= 2
    reduced = ["it was reduced to 8 bits a sample: JPEG holds no more"] if dtype is np.uint16 else []
    laid = ["its transparent parts were laid over white: JPEG holds no transparency"]
    assert picture.notices == laid + reduced


def test_full_alpha_is_dropped_from_a_jpeg_without_a_word() -> None:
    samples = scene(channels=4)
    samples[..., 3] = 255
    picture = make(samples)
    assert np.abs(np.asarray(pillow(written(picture, "jpg"))).astype(int) - samples[..., :3]).mean() < 2
    assert picture.notices == []


@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_colours_under_full_transparency_stay(format: str) -> None:
    samples = noise(24, 24, 4, np.uint8)
    samples[..., 3] = 0
    info = photo.PhotoInfo("WEBP", lossless=True)
    result = read(written(make(samples, info=info), format))
    np.testing.assert_array_equal(result.pixels, samples[..., :3])
    np.testing.assert_array_equal(result.alpha, samples[..., 3])


@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_jpeg_keeps_its_chroma_sampling(sampling: int) -> None:
    picture = read(encoded(scene(), "JPEG", subsampling=sampling))
    assert JpegImagePlugin.get_sampling(pillow(written(picture))) == sampling


def test_other_sources_give_full_chroma() -> None:
    assert JpegImagePlugin.get_sampling(pillow(written(make(scene()), "jpg"))) == 0


@pytest.mark.parametrize("format", ["jpg", "webp", "avif"])
def test_quality(format: str) -> None:
    picture = make(noise(64, 64, 3, np.uint8) // 8 + scene(64, 64) // 2)
    low, default, high = (len(written(picture, format, **q)) for q in ({"quality": 30}, {}, {"quality": 100}))
    assert low < default < high


def test_default_jpeg_quality_is_pillows_95() -> None:
    tables = pillow(written(make(scene()), "jpg")).quantization
    assert tables == pillow(encoded(scene(), "JPEG", quality=95)).quantization


def test_lossless_webp_stays_lossless_unless_a_quality_is_asked_for() -> None:
    picture = read(encoded(noise(32, 32, 3, np.uint8), "WEBP", lossless=True))
    np.testing.assert_array_equal(read(written(picture)).pixels, picture.pixels)
    assert not np.array_equal(read(written(picture, quality=80)).pixels, picture.pixels)
    lossy = read(encoded(scene(), "WEBP"))
    assert not lossy.info.lossless
    assert not np.array_equal(read(written(lossy)).pixels, lossy.pixels)


def test_mask_of_a_tiff_stays_a_mask() -> None:
    """Photoshop stores saved selections as a channel of no stated meaning; it is not transparency."""
    samples = noise(20, 20, 4, np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", extrasamples=["unspecified"])
    picture = read(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(written(picture))) as result:
        np.testing.assert_array_equal(result.asarray(), samples)
        assert result.pages[0].tags[338].value in (0, (0,))
    assert picture.notices == []
    assert pillow(written(picture, "png")).mode == "RGB"
    assert picture.notices == ["its mask channel was left out: PNG has no place for it"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_heic(channels: int) -> None:
    pytest.importorskip("pillow_heif")
    samples = scene(channels=channels)
    result = read(written(make(samples, info=photo.PhotoInfo("HEIC")), quality=100))
    assert result.info.format == "HEIC"
    assert np.abs(result.pixels[..., 0].astype(int) - samples[..., 0]).mean() < 3
    assert (result.alpha is not None) == (channels == 4)


def test_16_bit_heic_keeps_10_bits() -> None:
    pytest.importorskip("pillow_heif")
    picture = make(scene(dtype=np.uint16), info=photo.PhotoInfo("HEIC"))
    result = read(written(picture, quality=100))
    assert result.info.bit_depth == 10
    assert np.abs(result.pixels[..., 0].astype(int) - picture.pixels[..., 0]).mean() < 655


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a.JPG", None, "JPEG"),
        ("a.tif", None, "TIFF"),
        ("a.png", "same", "WEBP"),
        ("a.jpeg", "png", "PNG"),
        ("a", "avif", "AVIF"),
        ("a.bmp", None, "BMP"),
    ],
)
def test_format_follows_option_then_name(
    tmp_path: Path, name: str, format: str | None, expected: str
) -> None:
    picture = make(scene(), info=photo.PhotoInfo("WEBP"))
    photo.write(picture, tmp_path / name, format=format)
    assert pillow((tmp_path / name).read_bytes()).format == expected
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_stream_follows_the_source() -> None:
    for source, expected in (("TIFF", "TIFF"), ("BMP", "BMP"), ("GIF", "PNG")):
        assert pillow(written(make(scene(), info=photo.PhotoInfo(source)))).format == expected


def test_old_file_is_replaced(tmp_path: Path) -> None:
    path = save(tmp_path, "a.png", b"old" * 10_000)
    photo.write(make(scene()), str(path))
    np.testing.assert_array_equal(photo.read(path).pixels, scene())


@pytest.mark.parametrize(
    ("option", "source", "suffix"),
    [
        ("same", ".JPG", ".JPG"),
        ("same", ".tif", ".tif"),
        ("same", ".gif", ".png"),
        ("same", "", ".png"),
        (None, ".webp", ".webp"),
        ("jpg", ".png", ".jpg"),
        ("tiff", ".png", ".tiff"),
        ("avif", ".avif", ".avif"),
    ],
)
def test_output_suffix(option: str | None, source: str, suffix: str) -> None:
    assert photo.output_suffix(option, source) == suffix


def test_output_suffix_of_an_unknown_format() -> None:
    with pytest.raises(UsageError, match="unknown format 'bmp'"):
        photo.output_suffix("bmp")
