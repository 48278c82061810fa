"""Dataclasses from JSON values, checked against their annotations."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any


def build(kind: Any, value: Any, where: str = "report") -> Any:
    """Turn JSON values into what a type annotation asks for; keys it does not know are left out.

    Args:
        kind: A dataclass, list, dict, optional or plain type.
        value: As `json.loads` returned it.
        where: Path of the value, for messages.

    Raises:
        TypeError: A value is of another type, or missing.
        ValueError: A number is not finite.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        optional = [a for a in arguments if a is not type(None)]
        return None if value is None else build(optional[0], value, where)
    if origin is list:
        return [build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(_expect(value, list, where))]
    if origin is dict:
        return {k: build(arguments[1], v, f"{where}.{k}") for k, v in _expect(value, dict, where).items()}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {k: v for k, v in _expect(value, dict, where).items() if k in hints}
        return kind(**{k: build(hints[k], v, f"{where}.{k}") for k, v in known.items()})  # type: ignore[operator]
    if kind is float:
        number = float(_expect(value, int | float, where))
        if not math.isfinite(number):
            raise ValueError(f"{where} is {number}")
        return number
    return _expect(value, kind, where)


def _expect(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{where} is {value!r}, expected {getattr(kind, '__name__', kind)}")
    return value
