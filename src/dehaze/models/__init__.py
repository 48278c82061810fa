"""The networks, each built from a frozen config; `build` is the only way in."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from dehaze.limits import Limits
from dehaze.models.aod_net import AODNet, AODNetConfig
from dehaze.models.lite import Lite, LiteConfig
from dehaze.models.student import Student, StudentConfig
from dehaze.models.teacher import Teacher, TeacherConfig

Config = StudentConfig | LiteConfig | TeacherConfig | AODNetConfig

ARCHITECTURES: dict[str, tuple[type[nn.Module], type[Any]]] = {
    "student": (Student, StudentConfig),
    "lite": (Lite, LiteConfig),
    "teacher": (Teacher, TeacherConfig),
    "aod-net": (AODNet, AODNetConfig),
}
"""Architecture name, as checkpoints store it -> network and config class."""

TEACHER_VARIANTS: dict[str, TeacherConfig] = {
    "fsrcnn": TeacherConfig(multi_channel=False, separable=False),
    "mc-fsrcnn": TeacherConfig(separable=False),
    "relu-mc-fsrcnn": TeacherConfig(separable=False, activation="relu"),
    "dsc-mc-fsrcnn": TeacherConfig(),
    "dscbn-mc-fsrcnn": TeacherConfig(batch_norm=True),
}
"""The paper's names (Tables 1-4) for members of the FSRCNN family, at 2x."""

MAX_SIZE = 1 << 16
"""Product of a config's numbers beyond which no network is built from it; the paper's student has 2,304."""


def build(architecture: str, config: dict[str, Any] | Config | None = None) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        architecture: A key of `ARCHITECTURES`.
        config: The architecture's config, or its fields as plain JSON values; None for the defaults.

    Raises:
        ValueError: The architecture is unknown; or the config has fields it does not know, values of another
            type than the fields', or is that of a network beyond `MAX_SIZE`.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture '{architecture}'; known: {', '.join(ARCHITECTURES)}")
    network, config_class = ARCHITECTURES[architecture]
    if not isinstance(config, config_class):
        config = _read_config(architecture, config_class, {} if config is None else config)
    return network(config)


def _read_config(architecture: str, config_class: type[Any], values: object) -> Any:
    """Make a config of plain JSON values, trusting none of them."""
    if not isinstance(values, dict):
        raise ValueError(f"the settings of {architecture} are {values!r:.40}, expected names and values")
    unknown = values.keys() - {f.name for f in fields(config_class)}
    if unknown:
        raise ValueError(f"{architecture} has no setting {', '.join(sorted(unknown))}")
    standard = config_class()
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in given.items():
        if not _alike(value, getattr(standard, name)):
            usual = getattr(standard, name)
            raise ValueError(f"{architecture}'s setting {name} is {value!r:.40}, expected one like {usual!r}")
    for name, kind in get_type_hints(config_class).items():
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices and given.get(name, choices[0]) not in choices:
            raise ValueError(
                f"{architecture}'s {name} is {given[name]!r:.40}, expected {' or '.join(choices)}"
            )
    config = config_class(**given)
    sizes = [_size(value) for value in asdict(config).values()]
    if min(sizes) < 1 or math.prod(sizes) > MAX_SIZE:
        raise ValueError(f"no {architecture} network can have the settings {given!r:.80}")
    return config


def _alike(value: object, standard: object) -> bool:
    """Whether a value is of the type of a setting's default; a whole number may stand for any number."""
    if isinstance(value, tuple) and isinstance(standard, tuple):
        return bool(value) and all(_alike(item, standard[0]) for item in value)
    return type(value) is type(standard) or (type(value) is int and type(standard) is float)


def _size(value: object) -> int:
    """A whole number itself, several their sum (0 if one is too small); 1 for anything else."""
    if isinstance(value, tuple):
        sizes = [_size(item) for item in value]
        return sum(sizes) if min(sizes) >= 1 else 0
    return value if type(value) is int else 1


def config_dict(model: nn.Module) -> dict[str, Any]:
    """Return a network's config as plain JSON values (tuples become lists when stored)."""
    config: Any = model.config
    return asdict(config)


def architecture_of(model: nn.Module) -> str:
    """Return the key of `ARCHITECTURES` that a network was built from."""
    return next(name for name, (network, _) in ARCHITECTURES.items() if type(model) is network)


def count_parameters(model: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in model.parameters())


__all__ = [
    "ARCHITECTURES",
    "TEACHER_VARIANTS",
    "AODNetConfig",
    "Config",
    "Limits",
    "LiteConfig",
    "StudentConfig",
    "TeacherConfig",
    "architecture_of",
    "build",
    "config_dict",
    "count_parameters",
]
