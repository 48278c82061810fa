"""Every file that cannot be read or written gets one clear sentence, and nothing else."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dehaze import photo
from dehaze.errors import PhotoError, UsageError
from photo_files import camera_exif, encoded, noise, read, save, scene, written


def refusal(source: object, **options: object) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        photo.read(source, **options)
    error = caught.value
    assert "\n" not in error.message
    assert not error.message.endswith(".")
    return error


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "gone.jpg"
    assert refusal(path).message == f"there is no file {path}"


def test_directory(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.message == f"{tmp_path} is a directory, not a picture"
    assert error.hint.endswith(f"dehaze folder {tmp_path}")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, "secret.jpg", encoded(scene(), "JPEG"))

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(path).message == f"{path} cannot be read: Permission denied"


def test_impossible_name() -> None:
    assert "cannot be read" in refusal("a\0b.jpg").message


def test_no_bytes(tmp_path: Path) -> None:
    path = save(tmp_path, "empty.jpg", b"")
    assert refusal(path).message == f"{path} is empty: it has no bytes"
    assert refusal(io.BytesIO()).message == "the input stream is empty: it has no bytes"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"Dear diary, today it was foggy again.\n", "it is text"),
        ("Liebes Tagebuch, heute war es süß.\n".encode(), "it is text"),
        (b"%PDF-1.7 ...", "it is a PDF document"),
        (b"8BPS\0\1" + bytes(60), "it is a Photoshop document"),
        (b"PK\3\4" + bytes(60), "it is a ZIP archive"),
        (b"\0\0\0\x18ftypisom" + bytes(60), "it is a video"),
        (bytes(100), "its first bytes belong to no format we know"),
        (b"\xff", "its first bytes belong to no format we know"),
    ],
)
def test_no_picture(tmp_path: Path, data: bytes, what: str) -> None:
    path = save(tmp_path, "renamed.jpg", data)
    error = refusal(path)
    assert error.message == f"{path} is not a picture that dehaze can read: {what}"
    assert error.hint == "dehaze reads JPEG, PNG, WEBP, AVIF, TIFF, BMP, HEIC, GIF"


def deep(format: str) -> bytes:
    samples = noise(90, 120, 3, np.uint16)
    return written(photo.Photo(pixels=samples), format)


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "16-bit PNG", "16-bit TIFF"]
)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_cut_short(format: str, part: float, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing half decoded is returned, and no decoder talks past us to the terminal."""
    data = (
        deep(format[7:].lower()) if format.startswith("16") else encoded(noise(90, 120, 3, np.uint8), format)
    )
    cut = data[: max(30, int(len(data) * part))]
    error = refusal(io.BytesIO(cut))
    assert error.message.startswith(
        f"the input stream is a damaged {format[7:] if format[0] == '1' else format} file: "
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_heic_cut_short(part: float) -> None:
    library = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    library.encode("RGB", (120, 90), noise(90, 120, 3, np.uint8).tobytes(), file)
    assert (
        "damaged HEIC file"
        in refusal(io.BytesIO(file.getvalue()[: int(len(file.getvalue()) * part)])).message
    )


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "16-bit PNG", "16-bit TIFF"]
)
def test_random_damage_is_read_or_refused(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = deep(format[7:].lower()) if format.startswith("16") else encoded(scene(), format)
    random = np.random.default_rng(len(format))
    for _ in range(40):
        damaged = bytearray(data)
        for position in random.integers(16, min(len(data), 600), 4):
            damaged[position] = random.integers(0, 256)
        try:
            picture = photo.read(io.BytesIO(bytes(damaged)), max_pixels=10**6)
        except PhotoError:
            continue
        assert picture.pixels.shape[2] == 3


def test_a_picture_too_large_to_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cv2.rotate", fail)
    data = encoded(scene(), "PNG", exif=camera_exif(6))
    assert refusal(io.BytesIO(data)).message == "the input stream is larger than the memory at hand"


def test_wrong_checksum_of_a_png() -> None:
    data = bytearray(deep("png"))
    data[len(data) // 2] ^= 1
    assert refusal(io.BytesIO(bytes(data))).message.endswith("a checksum is wrong")


def test_a_palette_that_is_missing() -> None:
    file = io.BytesIO()
    Image.fromarray(scene()).convert("P").save(file, "PNG")
    data = file.getvalue()
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    error = refusal(io.BytesIO(data[:start] + data[end:]))
    assert error.message == "the input stream is a damaged PNG file: its palette is missing"


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_bomb_names_size_limit_and_flag(tmp_path: Path) -> None:
    path = save(tmp_path, "bomb.png", bomb(60_000, 50_000))
    error = refusal(path)
    assert error.message == f"{path} is 60000 x 50000 pixels (3,000 MP), over the limit of 500 MP"
    assert error.hint == "if you trust the file, lift the limit with --max-pixels 3000000000"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_limit_holds_for_every_format_and_can_be_lifted(format: str) -> None:
    data = encoded(scene(), format)
    pixels = 48 * 64
    assert "over the limit of 3,071 pixels" in refusal(io.BytesIO(data), max_pixels=pixels - 1).message
    assert photo.read(io.BytesIO(data), max_pixels=pixels).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "BMP", "GIF"])
def test_only_our_limit_counts(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's limit would warn, or refuse, in the middle of our work."""
    data = encoded(scene(), format)
    palette = io.BytesIO()
    Image.fromarray(scene()).convert("P").save(palette, "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read(data).pixels.shape == (48, 64, 3)
    if format == "TIFF":
        assert read(palette.getvalue()).pixels.shape == (48, 64, 3)


def test_a_sound_picture_that_a_decoder_finds_too_large_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(scene(), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    error = refusal(io.BytesIO(data))
    assert error.message == "the input stream has more pixels than the decoder of WEBP takes"
    assert error.hint == "convert it to PNG or TIFF first"


def test_camera_raw_is_refused_by_name_and_by_content(tmp_path: Path) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, scene(), photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    preview = encoded(scene(), "TIFF")
    for path in (save(tmp_path, "a.tif", file.getvalue()), save(tmp_path, "b.NEF", preview)):
        error = refusal(path)
        assert error.message == f"{path} is a camera raw file, which dehaze cannot develop"
        assert error.hint == "export it as a 16-bit TIFF first"


def test_floating_point_tiff_is_refused() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, scene().astype(np.float32), photometric="rgb")
    assert "32-bit floating point samples" in refusal(io.BytesIO(file.getvalue())).message


@pytest.fixture
def picture() -> photo.Photo:
    return photo.Photo(pixels=scene())


def refused_write(picture: photo.Photo, target: object, **options: object) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        photo.write(picture, target, **options)
    assert "\n" not in caught.value.message
    return caught.value


def test_missing_directory(tmp_path: Path, picture: photo.Photo) -> None:
    path = tmp_path / "gone" / "a.png"
    assert (
        refused_write(picture, path).message
        == f"{path} cannot be written: there is no directory {path.parent}"
    )


def test_directory_as_target(tmp_path: Path, picture: photo.Photo) -> None:
    path = tmp_path / "a.png"
    path.mkdir()
    assert refused_write(picture, path).message == f"{path} cannot be written: it is a directory"


def test_write_protected_file_is_not_replaced(
    tmp_path: Path, picture: photo.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, "a.png", b"precious")
    monkeypatch.setattr(os, "access", lambda target, mode: False)
    assert refused_write(picture, path).message == f"{path} cannot be written: it is write-protected"
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("before", [None, b"precious"])
def test_full_disk_leaves_nothing_behind(
    tmp_path: Path, picture: photo.Photo, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    path = tmp_path / "a.png"
    if before is not None:
        path.write_bytes(before)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert refused_write(picture, path).message == f"{path} cannot be written: No space left on device"
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["a.png"])
    assert before is None or path.read_bytes() == before


def test_interruption_leaves_nothing_behind(
    tmp_path: Path, picture: photo.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        photo.write(picture, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_new_file_has_the_permissions_the_umask_allows(tmp_path: Path, picture: photo.Photo) -> None:
    old = os.umask(0o027)
    try:
        photo.write(picture, tmp_path / "a.png")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_old_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path, picture: photo.Photo) -> None:
    path = save(tmp_path, "a.png", b"old")
    path.chmod(0o604)
    link = tmp_path / "link.png"
    link.symlink_to(path)
    photo.write(picture, link)
    assert link.is_symlink()
    assert path.read_bytes().startswith(b"\x89PNG")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_device_is_written_to_and_stays(picture: photo.Photo) -> None:
    photo.write(picture, Path(os.devnull), format="png")
    assert Path(os.devnull).is_char_device()


def test_stream_gets_nothing_if_encoding_fails() -> None:
    file = io.BytesIO()
    wide = photo.Photo(pixels=np.zeros((1, 16_384, 3), np.uint8))
    error = refused_write(wide, file, format="webp")
    assert (
        error.message == "the output stream cannot be written: 16384 x 1 pixels, and WEBP holds 16383 a side"
    )
    assert file.getvalue() == b""


def test_broken_stream(picture: photo.Photo) -> None:
    class Broken(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

    assert (
        refused_write(picture, Broken()).message == "the output stream cannot be written: Input/output error"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "bmp"}, "unknown format 'bmp': expected same, png, jpg, webp, avif, tiff"),
        ({"format": "jpg", "quality": 0}, "quality must be 1 to 100, got 0"),
        ({"format": "jpg", "quality": 101}, "quality must be 1 to 100, got 101"),
        ({"format": "jpg", "bit_depth": 16}, "JPEG does not hold 16 bits a sample"),
        ({"format": "avif", "bit_depth": 16}, "AVIF does not hold 16 bits a sample"),
        ({"bit_depth": 12}, "unknown bit depth '12': expected auto, 8 or 16"),
        ({"metadata": "some"}, "unknown metadata choice 'some': expected keep or strip"),
    ],
)
def test_impossible_options(picture: photo.Photo, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        written(picture, **options)
    assert caught.value.message == message


@pytest.mark.parametrize("name", ["a.xyz", "a.gif", "a"])
def test_unknown_suffix(tmp_path: Path, picture: photo.Photo, name: str) -> None:
    with pytest.raises(UsageError, match=r"expected one of \.jpg \.png \.webp \.avif \.tiff \.bmp \.heic"):
        photo.write(picture, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
