"""Clear haze and fog from photos and video.

>>> import dehaze
>>> dehaze.dehaze("foggy.jpg").save("clear.jpg")

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dehaze.errors import DehazeError
from dehaze.version import __version__

if TYPE_CHECKING:
    from dehaze.api import Model, dehaze, list_models, load_model

__all__ = ["DehazeError", "Model", "__version__", "dehaze", "list_models", "load_model"]

_LAZY = ("Model", "dehaze", "list_models", "load_model")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from dehaze import api

        return getattr(api, name)
    raise AttributeError(f"module 'dehaze' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
