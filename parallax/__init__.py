"""Parallax: language models made of tracks, and the harness that trains and compares them.

Importing the package loads no torch; public names are resolved when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "DualTrack": "parallax.model.dual_track",
    "DualTrackConfig": "parallax.config.models.dual_track",
    "ParallaxError": "parallax.errors",
    "RunConfig": "parallax.config.run",
    "build_model": "parallax.model.registry",
    "load_config": "parallax.config.load",
    "load_model": "parallax.checkpoint.model",
    "parallax_decode": "parallax.attention.plla.api",
    "parallax_func": "parallax.attention.plla.api",
    "parallax_reference": "parallax.attention.plla.reference",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'parallax' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
