"""The Python API: every kind of picture, the same kind back, and the same answer whatever the kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageCms

import dehaze
from dehaze.dehazer import from_name
from dehaze.models import build
from dehaze.photo import Photo, PhotoInfo, write
from dehaze.photo.icc import DISPLAY_P3, make_profile
from dehaze.weights import Header
from dehaze.weights.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    # Fresh weights dehaze nothing at all: their last layer is zero.
    tensors = {
        name: value + 0.01 * torch.randn(value.shape) for name, value in build("lite").state_dict().items()
    }
    save_checkpoint(path, tensors, Header(name="toy", architecture="lite", working_size=32))
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> dehaze.Model:
    return dehaze.load_model(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def hazy() -> npt.NDArray[np.uint8]:
    x, y = np.meshgrid(np.linspace(60, 200, 40), np.linspace(0, 50, 30))
    return np.stack([x, x * 0.5 + y, 255 - x + y * 0.2], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def clear(hazy: npt.NDArray[np.uint8], checkpoint: Path) -> npt.NDArray[np.uint8]:
    """The oracle: what the dehazer itself makes of the same pixels."""
    answer = from_name(str(checkpoint), device="cpu")(hazy)
    assert np.abs(answer.astype(int) - hazy).max() > 3
    return answer


def test_import_is_light() -> None:
    heavy = ("torch", "numpy", "cv2", "PIL")
    code = f"import sys, dehaze; dehaze.__version__; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    assert set(dehaze.__all__) <= set(dir(dehaze))
    assert all(getattr(dehaze, name) is not None for name in dehaze.__all__)
    with pytest.raises(AttributeError, match="no attribute 'defog'"):
        dehaze.defog  # noqa: B018


def test_array(model: dehaze.Model, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]) -> None:
    before = hazy.copy()
    answer = model(hazy)
    np.testing.assert_array_equal(answer, clear)
    np.testing.assert_array_equal(hazy, before)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
def test_arrays_of_every_type(
    dtype: str, model: dehaze.Model, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]
) -> None:
    scale = {"uint8": 1, "uint16": 257, ">u2": 257}.get(dtype, 1 / 255)
    answer = model((hazy.astype(float) * scale).astype(dtype))
    assert answer.dtype == np.dtype(dtype)
    assert np.abs(answer.astype(np.float64) / scale - clear).max() <= 1


def test_alpha_is_kept(
    model: dehaze.Model, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]
) -> None:
    alpha = np.arange(1200).reshape(30, 40, 1).astype(np.uint8)
    answer = model(np.dstack([hazy, alpha]))
    np.testing.assert_array_equal(answer, np.dstack([clear, alpha]))


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1), (30, 40, 2)])
def test_gray_stays_gray(shape: tuple[int, ...], model: dehaze.Model, hazy: npt.NDArray[np.uint8]) -> None:
    gray = np.resize(hazy[..., 0], (30, 40))
    picture = gray if shape == (30, 40) else np.repeat(gray[..., None], shape[2], axis=2)
    answer = model(picture)
    assert answer.shape == shape
    colours = model(np.repeat(gray[..., None], 3, axis=2))
    with Image.fromarray(colours) as image:
        luma = np.asarray(image.convert("L")).astype(int)
    first = answer if answer.ndim == 2 else answer[..., 0]
    assert np.abs(first - luma).max() <= 1
    if shape == (30, 40, 2):
        np.testing.assert_array_equal(answer[..., 1], gray)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 2), (9, 7, 3), (90, 70, 4)])
def test_strength_0_gives_back_the_input(dtype: type, shape: tuple[int, ...], model: dehaze.Model) -> None:
    values = np.random.default_rng(0).random(shape)
    picture = (values * (1 if dtype is np.float32 else np.iinfo(dtype).max)).astype(dtype)
    answer = model(picture, strength=0)
    np.testing.assert_array_equal(answer, picture)
    assert answer is not picture


@pytest.mark.parametrize(
    ("mode", "back"),
    [
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("L", "L"),
        ("LA", "LA"),
        ("La", "LA"),
        ("P", "RGB"),
        ("1", "L"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
        ("HSV", "RGB"),
        ("LAB", "RGB"),
        ("I;16", "I;16"),
    ],
)
def test_pil_modes(mode: str, back: str, model: dehaze.Model, hazy: npt.NDArray[np.uint8]) -> None:
    image = Image.fromarray(hazy)
    if mode == "I;16":
        image = Image.fromarray(hazy[..., 0].astype(np.uint16) * 257)
    elif mode == "LAB":
        lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = ImageCms.applyTransform(image, lab)
    elif mode == "La":
        image = image.convert("LA").convert("La")
    else:
        image = image.convert(mode)
    answer = model(image)
    assert answer.mode == back
    assert answer.size == image.size


def test_pil_answer_is_the_arrays_and_keeps_what_came_with_it(
    model: dehaze.Model, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]
) -> None:
    image = Image.fromarray(hazy)
    exif = Image.Exif()
    exif[0x010F] = "Camera Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info.update(exif=exif.tobytes(), icc_profile=profile, dpi=(300, 300))
    answer = model(image)
    np.testing.assert_array_equal(np.asarray(answer), clear)
    assert answer.info == image.info
    assert answer.getexif()[0x010F] == "Camera Maker"


def test_a_palette_with_transparency_becomes_rgba(model: dehaze.Model, hazy: npt.NDArray[np.uint8]) -> None:
    image = Image.fromarray(hazy).convert("P")
    image.info["transparency"] = 0
    answer = model(image)
    assert answer.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(answer)[..., 3], np.asarray(image.convert("RGBA"))[..., 3])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_becomes_alpha(
    mode: str, tmp_path: Path, model: dehaze.Model, hazy: npt.NDArray[np.uint8]
) -> None:
    image = Image.fromarray(hazy).convert(mode)
    image.save(tmp_path / "x.png", transparency=image.getpixel((3, 4)))
    with Image.open(tmp_path / "x.png") as opened:
        answer = model(opened)
    assert answer.mode == mode + "A"
    alpha = np.asarray(answer)[..., -1]
    assert (alpha[4, 3], alpha[20, 20]) == (0, 255)
    np.testing.assert_array_equal(np.asarray(answer), np.asarray(model(tmp_path / "x.png")))
    assert "transparency" not in answer.info


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensor(
    dtype: torch.dtype, model: dehaze.Model, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]
) -> None:
    scale = 1 if dtype == torch.uint8 else 255
    picture = (torch.from_numpy(hazy).permute(2, 0, 1).float() / scale).to(dtype)
    answer = model(picture)
    assert (answer.dtype, answer.shape, answer.device) == (picture.dtype, picture.shape, picture.device)
    difference = answer.double() * scale - torch.from_numpy(clear).permute(2, 0, 1).double()
    assert difference.abs().max() <= (2 if dtype == torch.bfloat16 else 1)


def test_batch_of_tensors(model: dehaze.Model, hazy: npt.NDArray[np.uint8]) -> None:
    pictures = torch.from_numpy(np.stack([hazy, hazy[::-1]])).permute(0, 3, 1, 2)
    answers = model(pictures)
    for picture, answer in zip(pictures, answers, strict=True):
        torch.testing.assert_close(answer, model(picture), rtol=0, atol=0)


def test_tensor_of_another_librarys_class(model: dehaze.Model) -> None:
    class Picture(torch.Tensor):
        pass

    plain = torch.rand(3, 8, 8)
    assert torch.equal(model(plain.as_subclass(Picture)), model(plain))


def test_tensor_that_wants_gradients(model: dehaze.Model) -> None:
    answer = model(torch.rand(3, 8, 8, requires_grad=True))
    assert not answer.requires_grad


@pytest.mark.parametrize("kind", [str, Path])
def test_path(
    kind: type, tmp_path: Path, model: dehaze.Model, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]
) -> None:
    path = tmp_path / "foggy.png"
    Image.fromarray(hazy).save(path, dpi=(300, 300))
    answer = model(kind(path))
    assert answer.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(answer), clear)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_paths_of_other_modes_equal_their_pil_images(mode: str, tmp_path: Path, model: dehaze.Model) -> None:
    image = Image.effect_noise((40, 30), 50).convert(mode)
    image.save(tmp_path / "x.png")
    answer = model(tmp_path / "x.png")
    assert answer.mode == mode
    assert np.abs(np.asarray(answer).astype(int) - np.asarray(model(image))).max() <= 1


def test_wide_gamuts_are_kept_and_the_network_sees_srgb(
    tmp_path: Path, model: dehaze.Model, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]
) -> None:
    image = Image.fromarray(hazy)
    image.info["icc_profile"] = profile = make_profile("P3", DISPLAY_P3, None)
    image.save(tmp_path / "x.png", icc_profile=profile)
    answers = model(image), model(tmp_path / "x.png")
    np.testing.assert_array_equal(np.asarray(answers[0]), np.asarray(answers[1]))
    assert np.abs(np.asarray(answers[0]).astype(int) - clear).max() > 2
    assert [answer.info["icc_profile"] for answer in answers] == [profile, profile]


def test_a_damaged_profile_is_a_warning(model: dehaze.Model, hazy: npt.NDArray[np.uint8]) -> None:
    image = Image.fromarray(hazy)
    image.info["icc_profile"] = b"damaged"
    with pytest.warns(UserWarning, match="taken for sRGB"):
        model(image)


def test_a_notice_of_a_file_is_a_warning(tmp_path: Path, model: dehaze.Model) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("gray", "white")]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.warns(UserWarning, match=r"x\.webp: "):
        model(tmp_path / "x.webp")


def test_a_files_mask_does_not_become_transparency(
    tmp_path: Path, model: dehaze.Model, hazy: npt.NDArray[np.uint8]
) -> None:
    picture = Photo(hazy, alpha=hazy[..., 0], info=PhotoInfo(format="TIFF", mask=True))
    write(picture, tmp_path / "x.tif")
    with pytest.warns(UserWarning, match=r"x\.tif: its mask channel was left out"):
        answer = model(tmp_path / "x.tif")
    np.testing.assert_array_equal(np.asarray(answer), model(hazy))


def test_path_answers_upright_with_exif(
    tmp_path: Path, model: dehaze.Model, hazy: npt.NDArray[np.uint8]
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera Maker"
    Image.fromarray(hazy).save(tmp_path / "x.jpg", exif=exif)
    answer = model(tmp_path / "x.jpg")
    assert answer.size == (30, 40)
    assert answer.getexif()[0x010F] == "Camera Maker"
    assert answer.getexif().get(0x0112, 1) == 1


def test_a_path_that_is_no_picture(tmp_path: Path, model: dehaze.Model) -> None:
    with pytest.raises(dehaze.DehazeError, match=r"missing\.jpg"):
        model(tmp_path / "missing.jpg")


@pytest.mark.parametrize("shape", [(4,), (4, 4, 5), (2, 4, 4, 3), (0, 4, 3)])
def test_array_shapes_are_checked(shape: tuple[int, ...], model: dehaze.Model) -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W\)"):
        model(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 2, 3, 4, 4), (0, 3, 4, 4), (3, 0, 4)])
def test_tensor_shapes_are_checked(shape: tuple[int, ...], model: dehaze.Model) -> None:
    with pytest.raises(ValueError, match=r"expected \(C, H, W\)"):
        model(torch.zeros(shape))


@pytest.mark.parametrize("worst", [255.0, -1.0, float("nan"), float("inf")])
def test_float_ranges_are_checked(worst: float, model: dehaze.Model) -> None:
    picture = np.full((4, 4, 3), 0.5)
    picture[1, 2, 0] = worst
    with pytest.raises(ValueError, match=r"expected floats in \[0, 1\]"):
        model(picture)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_modes_without_a_range_are_refused(mode: str, model: dehaze.Model) -> None:
    with pytest.raises(ValueError, match=f"mode {mode}"):
        model(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("picture", [None, 3, [[0]], b"bytes", np.zeros((4, 4, 3), np.int64)])
def test_other_types_are_refused(picture: object, model: dehaze.Model) -> None:
    with pytest.raises(TypeError, match="expected"):
        model(picture)  # type: ignore[call-overload]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_is_checked(strength: float, model: dehaze.Model, hazy: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="strength"):
        model(hazy, strength=strength)


def test_info(model: dehaze.Model) -> None:
    assert (model.info.name, model.info.architecture, model.info.working_size) == ("toy", "lite", 32)
    assert (model.info.device, model.info.precision) == ("cpu", "fp32")
    assert repr(model) == "<dehaze.Model toy on cpu>"


def test_one_call(checkpoint: Path, hazy: npt.NDArray[np.uint8], clear: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(dehaze.dehaze(hazy, model=checkpoint, device="cpu"), clear)
    np.testing.assert_array_equal(dehaze.dehaze(hazy, model=str(checkpoint), device="cpu", strength=0), hazy)


def test_one_call_keeps_its_model_and_follows_the_environment(
    checkpoint: Path,
    hazy: npt.NDArray[np.uint8],
    clear: npt.NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEHAZE_MODEL", str(checkpoint))
    np.testing.assert_array_equal(dehaze.dehaze(hazy, device="cpu"), clear)
    monkeypatch.setattr("dehaze.api.from_name", None)
    np.testing.assert_array_equal(dehaze.dehaze(hazy, device="cpu"), clear)
    monkeypatch.setenv("DEHAZE_MODEL", "another")
    with pytest.raises(TypeError, match="not callable"):
        dehaze.dehaze(hazy, device="cpu")


def test_the_device_may_come_from_the_environment(
    checkpoint: Path, hazy: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEHAZE_DEVICE", "cpu")
    assert dehaze.load_model(checkpoint).info.device == "cpu"
    monkeypatch.setenv("DEHAZE_DEVICE", "abacus")
    for call in (lambda: dehaze.load_model(checkpoint), lambda: dehaze.dehaze(hazy, model=checkpoint)):
        with pytest.raises(dehaze.DehazeError, match="abacus"):
            call()
    assert dehaze.load_model(checkpoint, device="cpu").info.device == "cpu"


def test_unknown_models(hazy: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(dehaze.DehazeError, match="no-such-name"):
        dehaze.load_model("no-such-name")
    for call in (lambda: dehaze.load_model(""), lambda: dehaze.dehaze(hazy, model="")):
        with pytest.raises(dehaze.DehazeError, match="the model's name is empty"):
            call()


def test_the_first_few_calls_need_no_pytorch(checkpoint: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    np.save(tmp_path / "in.npy", picture)
    code = (
        "import sys, numpy, dehaze; from dehaze.dehazer import FEW_PICTURES\n"
        "picture, model = numpy.load('in.npy'), sys.argv[1]\n"
        "for _ in range(FEW_PICTURES): answer = dehaze.dehaze(picture, model=model, device='cpu')\n"
        "assert 'torch' not in sys.modules\n"
        "numpy.save('out.npy', answer)\n"
        "dehaze.dehaze(picture, model=model, device='cpu')\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(checkpoint)], cwd=tmp_path, check=True)
    expected = dehaze.dehaze(picture, model=checkpoint, device="cpu")
    assert np.abs(np.load(tmp_path / "out.npy").astype(int) - expected).max() <= 1


def test_list_models() -> None:
    from dehaze.weights.manifest import read_manifest

    assert {model.name for model in dehaze.list_models()} == set(read_manifest())
