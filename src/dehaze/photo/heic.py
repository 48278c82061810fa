"""HEIC through the optional extra, at the file's own depth."""

from __future__ import annotations

import importlib
import io
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from dehaze.errors import PhotoError
from dehaze.photo.formats import HEIC_INSTALL

_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def load_library() -> ModuleType:
    """Import the extra.

    Raises:
        PhotoError: It is not installed.
    """
    try:
        return importlib.import_module("pillow_heif")
    except ImportError as error:
        raise PhotoError("HEIC pictures need an extra that is not installed", HEIC_INSTALL) from error


def open_file(data: bytes) -> tuple[Any, int]:
    """Read a file's headers: its main picture, and how many pictures there are."""
    file = load_library().open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return file[file.primary_index], len(file)


def decode(image: Any) -> npt.NDArray[Any]:
    """Decode to (H, W, C) uint8, or uint16 spread over all 16 bits; upright, as the format prescribes."""
    samples = np.asarray(image)
    samples = samples.reshape(*samples.shape[:2], -1)
    depth = int(image.info["bit_depth"])
    if samples.dtype == np.uint8 or depth >= 16:
        return np.ascontiguousarray(samples)
    highest = (1 << depth) - 1
    wide = samples.astype(np.uint32) * 65535
    wide += highest // 2
    wide //= highest
    return wide.astype(np.uint16)


def encode(samples: npt.NDArray[Any], *, quality: int, icc: bytes, exif: bytes, xmp: bytes) -> bytes:
    """Make a HEIC file of (H, W, C) uint8, or uint16 of which 10 bits are kept."""
    library = load_library()
    height, width, channels = samples.shape
    mode = _CHANNELS[channels] + (";16" if samples.dtype == np.uint16 else "")
    metadata = {"icc_profile": icc, "exif": exif, "xmp": xmp}
    given = {name: content for name, content in metadata.items() if content}
    file = io.BytesIO()
    library.encode(mode, (width, height), samples.tobytes(), file, quality=quality, **given)
    return file.getvalue()
