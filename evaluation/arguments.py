import argparse
from collections.abc import Collection, Iterable

from parallax.errors import ConfigError


def check_names(names: Iterable[str], known: Collection[str], given_as: str) -> None:
    """Refuses names on the command line that are not known.

    Args:
        names: what was given.
        known: what could have been.
        given_as: the option or metavar, for the message: `--only`, `PART`.

    Raises:
        ConfigError: names the first that is unknown, and all that are known.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"{given_as} {name}: expected {', '.join(known)}")


def check_at_least(given: argparse.Namespace, **least: int) -> None:
    """Refuses options that are too small, such as `batch_size=1` for `--batch-size 0`.

    Raises:
        ConfigError: names the first of them, and the least that it may be.
    """
    for name, smallest in least.items():
        value = getattr(given, name)
        if value < smallest:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected at least {smallest}")
