"""The networks, each built from a frozen config; `build` is the only way in."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from torch import nn

from dehaze.models.aod_net import AODNet, AODNetConfig
from dehaze.models.limits import Limits
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


def build(architecture: str, config: dict[str, Any] | Config | None = None) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        architecture: A key of `ARCHITECTURES`.
        config: The architecture's config, or its fields as plain JSON values; None for the defaults.

    Raises:
        ValueError: The architecture is unknown or the config has fields it does not know.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture '{architecture}'; known: {', '.join(ARCHITECTURES)}")
    network, config_class = ARCHITECTURES[architecture]
    if config is None or isinstance(config, dict):
        values = dict(config or {})
        unknown = values.keys() - {f.name for f in fields(config_class)}
        if unknown:
            raise ValueError(f"{architecture} has no setting {', '.join(sorted(unknown))}")
        config = config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    return network(config)


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
