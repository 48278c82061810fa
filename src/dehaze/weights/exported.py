"""Networks exported to ONNX: what their files say of themselves, read without PyTorch or any ONNX package."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

from dehaze.errors import ModelError
from dehaze.limits import Limits
from dehaze.weights.checkpoint import HEADER_KEY, MAX_HEADER_BYTES, Header, header_json, parse_header

SUFFIX = ".onnx"

_PART_KEY, _LIMITS_KEY = "part", "limits"

_METADATA_PROPS = 14
"""Number of the field in ONNX's `ModelProto`; each entry holds a key (field 1) and a value (field 2)."""

_FIXED_BYTES = {1: 8, 5: 4}
_VARINT, _BYTES = 0, 2


@dataclass(frozen=True)
class Exported:
    """A network in an ONNX file; takes the place of a PyTorch network where pictures are cleared.

    Attributes:
        path: The file.
        header: As of the checkpoint it was made from.
        limits: What the network asks of its input.
    """

    path: Path
    header: Header
    limits: Limits


def is_exported(path: Path) -> bool:
    """Whether a path is that of an ONNX file, by its suffix."""
    return path.suffix.lower() == SUFFIX


def describe(header: Header, limits: Limits, parameters: int, part: str) -> dict[str, str]:
    """What to put into an exported file's metadata so that `read_exported` understands it."""
    return {
        HEADER_KEY: header_json(replace(header, parameters=parameters)),
        _LIMITS_KEY: json.dumps(asdict(limits)),
        _PART_KEY: part,
    }


def read_exported(path: Path) -> Exported:
    """Read what an exported network says of itself; the network is skipped unread.

    Raises:
        ModelError: No such file, not one of ours, from a newer version, or more than the network alone.
    """
    metadata = _metadata(path)
    if HEADER_KEY not in metadata:
        raise ModelError(
            f"{path} is not an ONNX file that dehaze made: its metadata has no '{HEADER_KEY}' entry",
            "make one with: dehaze export onnx --part network -o network.onnx",
        )
    header = parse_header(path, metadata[HEADER_KEY])
    if metadata.get(_PART_KEY) != "network":
        raise ModelError(
            f"{path} holds all of dehazing for use in other programs; as a model, dehaze takes the network "
            "alone",
            f"make it with: dehaze export onnx --part network -m {header.name} -o network.onnx",
        )
    try:
        values = json.loads(metadata[_LIMITS_KEY])
        known = {f.name for f in fields(Limits)}
        limits = Limits(**{k: v for k, v in values.items() if k in known})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} has damaged metadata: {error}", "export it again") from error
    return Exported(path, header, limits)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            entries = [
                dict(_fields(io.BytesIO(entry), {1, 2})) for _, entry in _fields(file, {_METADATA_PROPS})
            ]
        return {entry[1].decode(): entry[2].decode() for entry in entries if entry.keys() == {1, 2}}
    except FileNotFoundError as error:
        raise ModelError(f"no model at {path}", "see the names with: dehaze models list") from error
    except OSError as error:
        raise ModelError(f"cannot read model {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(
            f"{path} is not an ONNX file, or is cut short: {error}",
            "make one with: dehaze export onnx --part network -o network.onnx",
        ) from error


def _fields(file: BinaryIO, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """Numbers and bytes of the wanted fields of a Protocol Buffers message; others are skipped unread.

    Raises:
        ValueError: Not such a message.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    while file.tell() < size:
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _varint(file)
            continue
        if kind != _BYTES and kind not in _FIXED_BYTES:
            raise ValueError(f"field {number} is of unknown kind {kind}")
        length = _FIXED_BYTES.get(kind) or _varint(file)
        if length > size - file.tell():
            raise ValueError(f"field {number} ends after the file does")
        if kind == _BYTES and number in wanted and length <= MAX_HEADER_BYTES:
            yield number, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    """A number of seven bits a byte, lowest first; the eighth says that more follow."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number is longer than ten bytes")
