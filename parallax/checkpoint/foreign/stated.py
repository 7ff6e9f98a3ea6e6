from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parallax.errors import CheckpointError


def check_stated(
    raw: Mapping[str, Any],
    fixed: Mapping[str, tuple[Any, str]],
    needed: Iterable[str],
    source: str | Path,
    model: str,
) -> None:
    """Checks that a foreign `config.json` describes what a model here can be.

    Args:
        raw: its content.
        fixed: key -> the one value that can be read, which is also what an absent key means, and why no other.
        needed: keys that every such file has.
        source: where it comes from, for messages.
        model: what it should describe, for messages.

    Raises:
        CheckpointError: a key has another value, or is missing.
    """
    for key, (only, reason) in fixed.items():
        if raw.get(key, only) != only:
            raise CheckpointError(f"{source}: {key}={raw[key]!r}, and {reason}; only {key}={only!r} can be read")
    for key in needed:
        if key not in raw:
            raise CheckpointError(f"{source}: {key} is missing; expected the config.json of a {model} model")
