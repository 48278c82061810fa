"""Self-describing checkpoints: one `.safetensors` file whose header says all that loading it needs.

Nothing is ever unpickled. The header is JSON under the key ``dehaze`` of the safetensors metadata.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dehaze.errors import ModelError, UsageError
from dehaze.limits import REDUCTIONS, Reduction
from dehaze.parts import write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT_VERSION = 2
"""Raised when a reader of today could misunderstand a file of tomorrow.

1: all but `Header.reduction` and `Header.second_look`, of which its readers know nothing: they take the mean
and look once. 2: with them.
"""

MAX_HEADER_BYTES = 4 * 1024 * 1024
"""A safetensors header of ours is a few kilobytes; anything larger is refused unread."""

MAX_TRANSFER_RADIUS = 32
"""Wider windows than this would span a working copy."""

SMALLEST_WEIGHT = 1e-20
"""Weights smaller than this are stored as zero: products of denormals run many times slower on CPUs."""

HEADER_KEY = "dehaze"
"""Where a file's metadata holds the header."""

_FETCH_AGAIN = "fetch the file again, or see the models you can use with: dehaze models list"
_PICKLE_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
        name: Model name, for people.
        architecture: Key of `dehaze.models.ARCHITECTURES`.
        config: Fields of the architecture's config dataclass.
        working_size: Long side in pixels of the pictures the network was trained on; None if any size does.
        transfer_radius: Radius in working pixels of the windows over which its answers are averaged on their
            way to full resolution (`dehaze.upsample.fit`), 1 to `MAX_TRANSFER_RADIUS`.
        reduction: How a picture becomes its working copy (`dehaze.working_copy.reduce`).
        second_look: Long side in pixels at which the mirrored picture is looked at, too
            (`dehaze.dehazer.Dehazer`); None for one look alone.
        parameters: Number of learned values.
        recipe: The resolved training recipe.
        data: What it was trained on: names, counts, licences.
        metrics: Measured quality, with the convention and the command.
        source_commit: Commit of the code that trained it; empty if unknown.
        licence: Terms of the weights.
        format_version: Oldest version of the format whose readers understand the file, or a later one;
            2 at least is written where readers of 1 would do something else.
    """

    name: str
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    working_size: int | None = None
    transfer_radius: int = 1
    reduction: Reduction = "mean"
    second_look: int | None = None
    parameters: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    source_commit: str = ""
    licence: str = ""
    format_version: int = 1


def save_checkpoint(path: Path, tensors: dict[str, Tensor], header: Header) -> None:
    """Write tensors and header to one file, atomically; weights that are (nearly) denormal become zero."""
    clean = {k: _without_denormals(v.detach().cpu().contiguous()) for k, v in tensors.items()}
    write_safetensors(path, clean, {HEADER_KEY: header_json(header)})


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write contiguous CPU tensors as they are, atomically."""
    from safetensors.torch import save

    write_atomically(path, save(tensors, metadata=metadata))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file, or nothing, in a folder that is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def rewrite_header(source: Path, target: Path, header: Header) -> None:
    """Copy a checkpoint with another header; the weights stay as they are. The two paths may be one.

    Raises:
        ModelError: See `read_header`; also when the weights are damaged.
    """
    read_header(source)
    save_checkpoint(target, _read_tensors(source), header)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_denormals(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor.masked_fill(tensor.abs() < SMALLEST_WEIGHT, 0)


def read_header(path: Path) -> Header:
    """Read a checkpoint's header without touching its weights.

    Raises:
        ModelError: No such file, not a safetensors file, not one of ours, or from a newer version.
    """
    metadata = _safetensors_metadata(path)
    if HEADER_KEY not in metadata:
        raise ModelError(
            f"{path} is a safetensors file but not a dehaze checkpoint: its header has no '{HEADER_KEY}' "
            "entry",
            "use one made by 'dehaze train' or 'dehaze distill', or a name from 'dehaze models list'",
        )
    return parse_header(path, metadata[HEADER_KEY])


def check_dehazes(header: Header) -> None:
    """Refuse a network that is there to teach.

    Raises:
        UsageError: It enlarges pictures.
    """
    if header.architecture == "teacher":
        raise UsageError(
            f"model '{header.name}' is a super-resolution teacher: it enlarges pictures, not clears them",
            "see the dehazing models with: dehaze models list",
        )


def header_json(header: Header) -> str:
    """A header as files store it."""
    least = 1 if header.reduction == "mean" and header.second_look is None else 2
    return json.dumps({**asdict(header), "format_version": max(least, header.format_version)}, sort_keys=True)


def parse_header(path: Path, text: str) -> Header:
    """Read a header as files store it.

    Args:
        path: The file it came from, for messages.
        text: See `header_json`.

    Raises:
        ModelError: Damaged, or from a newer version.
    """
    try:
        values = json.loads(text)
        version = int(values["format_version"])
        if version > FORMAT_VERSION:
            raise ModelError(
                f"{path} has format {version}, this version of dehaze reads up to {FORMAT_VERSION}",
                "upgrade with: pip install --upgrade dehaze-cli",
            )
        known = {f.name for f in fields(Header)}
        header = Header(**{k: v for k, v in values.items() if k in known})
        _check_types(header)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{path} has a damaged checkpoint header: {error}", _FETCH_AGAIN) from error
    return header


def _check_types(header: Header) -> None:
    """Refuse values that code which trusts the annotations would stumble over."""
    sizes = ("working_size", "second_look")
    standard = Header("", "", working_size=1, second_look=1)
    for name, value in vars(header).items():
        fits = type(value) is type(getattr(standard, name)) or (name in sizes and value is None)
        if not fits or (name in sizes and value is not None and value < 1):
            raise ValueError(f"its {name} is {value!r:.40}")
    if not 1 <= header.transfer_radius <= MAX_TRANSFER_RADIUS:
        raise ValueError(f"its transfer_radius is {header.transfer_radius!r:.40}")
    if header.reduction not in REDUCTIONS:
        raise ValueError(f"its reduction is {header.reduction!r:.40}, not {' or '.join(REDUCTIONS)}")


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[nn.Module, Header]:
    """Build the network a checkpoint describes and load its weights; returned in evaluation mode.

    Raises:
        ModelError: See `read_header`; also when weights and architecture do not agree, or a weight is no
            finite number.
    """
    import torch

    from dehaze.models import build

    header = read_header(path)
    try:
        with torch.device("meta"):  # no memory before the file is known to fill it
            model = build(header.architecture, header.config)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ModelError(
            f"{path} describes a network this version cannot build: {error}",
            "upgrade with: pip install --upgrade dehaze-cli; or see: dehaze models list",
        ) from error
    weights = _read_tensors(path, device)
    wanted = model.state_dict()
    wrong = _disagreement(wanted, weights)
    if wrong:
        raise ModelError(f"{path} does not hold the weights its header describes: {wrong}", _FETCH_AGAIN)
    model.load_state_dict({k: v.to(wanted[k].dtype) for k, v in weights.items()}, assign=True)
    return model.eval(), header


def _read_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:  # not load_file, which takes no name that is not UTF-8
        return {name: tensor.to(device) for name, tensor in load(path.read_bytes()).items()}
    except SafetensorError as error:
        raise ModelError(f"{path} is a damaged checkpoint: {error}", _FETCH_AGAIN) from error


def _disagreement(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """What is wrong with a file's weights, in a few words; empty if nothing is."""
    import torch

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if missing := wanted.keys() - found.keys():
        return f"{min(missing)} is missing"
    if unknown := found.keys() - wanted.keys():
        return f"{min(unknown)} is no part of the network"
    for name, tensor in found.items():
        shape, expected = tuple(tensor.shape), tuple(wanted[name].shape)
        if shape != expected:
            return f"{name} has shape {shape}, expected {expected}"
        if (tensor.dtype in floats) != wanted[name].is_floating_point():
            return f"{name} holds {tensor.dtype}, expected {wanted[name].dtype}"
        if not tensor.to(wanted[name].dtype).isfinite().all():
            return f"{name} holds values that are no finite numbers"
    return ""


def _safetensors_metadata(path: Path) -> dict[str, str]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise ModelError(*_foreign(path, start))
            header = json.loads(file.read(length))
        _check_whole(path, header, size - 8 - length)
    except FileNotFoundError as error:
        raise ModelError(f"no checkpoint at {path}", "see the names with: dehaze models list") from error
    except OSError as error:
        raise ModelError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(*_foreign(path, start)) from error
    metadata = header.get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def _check_whole(path: Path, header: Any, found: int) -> None:
    """Refuse a file whose weights are not as many bytes as its header says."""
    entries = [value for key, value in header.items() if key != "__metadata__"]
    expected = max((entry["data_offsets"][1] for entry in entries), default=0)
    if found != expected:
        raise ModelError(
            f"{path} is a damaged checkpoint: it holds {found} bytes of weights, expected {expected}",
            _FETCH_AGAIN,
        )


def _foreign(path: Path, start: bytes) -> tuple[str, str]:
    what = "not a safetensors file"
    if start.startswith((b"PK", *_PICKLE_PROTOCOLS)):
        what = "a pickle or PyTorch archive, which could run code when opened, so it was not opened"
    return (
        f"{path} is {what}; a dehaze checkpoint is one .safetensors file",
        "see the models you can use with: dehaze models list",
    )
