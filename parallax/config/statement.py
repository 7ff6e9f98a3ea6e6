from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from parallax.errors import ConfigError


@dataclass(frozen=True)
class Statement:
    """What a file or a launcher beside the run configuration says about one of its keys."""

    key: str
    """Dotted key of the run configuration; or `accumulation`, which follows from the batch."""
    value: Any
    said: str
    """The value in its author's words, such as `gradient_clipping=0.5`."""
    place: str
    """Where it is said, such as the path of the file."""


def agreed(statements: Iterable[Statement], key: str) -> Statement | None:
    """The one thing that is said about a key; None: nothing.

    Raises:
        ConfigError: two places contradict each other; the message shows both values and both places.
    """
    found = [statement for statement in statements if statement.key == key]
    for other in found[1:]:
        if other.value != found[0].value:
            first = found[0]
            raise ConfigError(
                f"{first.place} says {first.said} and {other.place} says {other.said}; let one of them say it"
            )
    return found[0] if found else None


def contradiction(statement: Statement, ours: Any) -> ConfigError:
    """The error for a statement that the run configuration contradicts, with both values and both places."""
    text = str(ours).lower() if isinstance(ours, bool) else ours
    return ConfigError(
        f"{statement.place} says {statement.said} and the run configuration says {statement.key}={text}; "
        f"change one of them"
    )
