"""ICC profiles of the matrix kind: read their curves and primaries, make one.

Nearly all profiles of cameras, phones and editors are of this kind: three tone curves and a 3 x 3 matrix to
CIE XYZ under D50 (ICC.1:2022, 8.3 and F.3). Gray profiles are one tone curve.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]
"""Linear light in [0, 1] at equal steps of the encoded value; increasing."""

_NODES = 65536
_D50 = (0.9642, 1.0, 0.8249)
_ENCODED = np.linspace(0, 1, _NODES)


@dataclass(frozen=True)
class MatrixProfile:
    """Tone curves and primaries.

    Attributes:
        curves: One for red, green and blue each.
        matrix: (3, 3), columns are the XYZ of red, green and blue under D50; None for a gray profile.
    """

    curves: tuple[Curve, Curve, Curve]
    matrix: npt.NDArray[np.float64] | None


ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ under D50 of Adobe RGB (1998)'s red, green and blue."""
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
"""XYZ under D50 of Display P3's red, green and blue."""
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
"""XYZ under D50 of sRGB's red, green and blue."""
ADOBE_GAMMA = 563 / 256


def colour_space(icc: bytes) -> str:
    """Name of the profile's device space: RGB, GRAY, CMYK, Lab; empty if these are no profile's bytes."""
    return icc[16:20].decode("latin-1").strip() if len(icc) > 128 and icc[36:40] == b"acsp" else ""


def parse_matrix(icc: bytes) -> MatrixProfile | None:
    """Read a profile of the matrix or gray kind; None if it is of another kind.

    Raises:
        ValueError: The profile is damaged.
    """
    try:
        tags = _tags(icc)
        if "A2B0" in tags:
            return None
        if colour_space(icc) == "GRAY" and "kTRC" in tags:
            curve = _curve(tags["kTRC"])
            return MatrixProfile((curve, curve, curve), None)
        if colour_space(icc) != "RGB" or "rXYZ" not in tags:
            return None
        red, green, blue = (_curve(tags[f"{channel}TRC"]) for channel in "rgb")
        matrix = np.array([_xyz(tags[f"{channel}XYZ"]) for channel in "rgb"]).T
    except (struct.error, LookupError, ArithmeticError) as error:
        raise ValueError(f"damaged ICC profile: {error!r}") from error
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("damaged ICC profile: its primaries span no colour space")
    return MatrixProfile((red, green, blue), matrix)


def make_profile(name: str, primaries: tuple[tuple[float, float, float], ...], gamma: float | None) -> bytes:
    """Make a version 2 matrix profile.

    Args:
        name: Shown by editors; ASCII.
        primaries: XYZ under D50 of red, green and blue.
        gamma: Exponent of the tone curve; None for sRGB's own curve.
    """
    if gamma is None:
        values = np.rint(srgb_to_linear(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
        curve = b"curv" + struct.pack(">II", 0, len(values)) + values.tobytes()
    else:
        curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    text = name.encode("ascii") + b"\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + b"No copyright, use freely\0",
        b"wtpt": _pack_xyz(_D50),
    }
    for channel, xyz in zip(b"rgb", primaries, strict=True):
        tags[bytes([channel]) + b"XYZ"] = _pack_xyz(xyz)
        tags[bytes([channel]) + b"TRC"] = curve
    return _assemble(tags)


def srgb_to_linear(encoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1's tone curve, mirrored below zero and continued above one."""
    size = np.abs(encoded)
    linear = np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return np.copysign(linear, encoded)


def linear_to_srgb(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverse of `srgb_to_linear`."""
    size = np.abs(linear)
    encoded = np.where(size <= 0.0031308, size * 12.92, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(encoded, linear)


def _tags(icc: bytes) -> dict[str, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    tags = {}
    for index in range(min(count, 256)):
        name, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        tags[name.decode("latin-1")] = icc[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> tuple[float, ...]:
    return tuple(value / 65536 for value in struct.unpack_from(">3i", tag, 8))


def _pack_xyz(xyz: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in xyz))


def _curve(tag: bytes) -> Curve:
    kind = tag[:4]
    if kind == b"curv":
        values = _table_curve(tag)
    elif kind == b"para":
        values = _parametric_curve(tag)
    else:
        raise ValueError(f"damaged ICC profile: unknown kind of tone curve {kind!r}")
    return np.maximum.accumulate(np.clip(values, 0, 1))


def _table_curve(tag: bytes) -> Curve:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return _ENCODED.copy()
    if count == 1:
        return np.asarray(_ENCODED ** (struct.unpack_from(">H", tag, 12)[0] / 256))
    if len(tag) < 12 + 2 * count:
        raise ValueError("damaged ICC profile: a tone curve is cut short")
    table = np.frombuffer(tag, ">u2", count, 12) / 65535
    return np.interp(_ENCODED, np.linspace(0, 1, count), table)


def _parametric_curve(tag: bytes) -> Curve:
    """ICC.1:2022, table 68: Y = (aX + b)^g + e above d, cX + f below; the shorter kinds leave some out."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    size = (1, 3, 4, 5, 7)[kind]
    values = [value / 65536 for value in struct.unpack_from(f">{size}i", tag, 12)]
    g, a, b, c, d, e, f = values[0], 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if kind in (1, 2):
        a, b = values[1:3]
        d = -b / a
        e = f = values[3] if kind == 2 else 0.0
    elif kind in (3, 4):
        a, b, c, d = values[1:5]
        e, f = values[5:7] if kind == 4 else (0.0, 0.0)
    power = np.maximum(a * _ENCODED + b, 0) ** g + e
    return np.where(d <= _ENCODED, power, c * _ENCODED + f)


def _assemble(tags: dict[bytes, bytes]) -> bytes:
    offset = 132 + 12 * len(tags)
    table, body, placed = b"", b"", {}
    for name, content in tags.items():
        if content not in placed:
            placed[content] = offset + len(body)
            body += content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, placed[content], len(content))
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
