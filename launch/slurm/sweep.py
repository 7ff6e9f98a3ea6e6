import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from parallax.errors import ConfigError

OWN = ("run.dir", "run.name")
"""What every member of a sweep has for itself."""


def split_sweep(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """What varies, and what has one value: an override, which `--sweep` swallows if it comes after it."""
    texts = [(text, "=" in text and len(split_values(text.partition("=")[2])) == 1) for text in given]
    return [text for text, single in texts if not single], [text for text, single in texts if single]


def parse_sweep(given: Sequence[str], overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the values: one tuple of `key=value` for each member, the last key varying fastest.

    Args:
        given: `key=value,value,…`; commas inside brackets, braces and quotes belong to the value.
        overrides: what is the same for all members.

    Raises:
        ConfigError: not of that form, a value or a key that is there twice, or a key that a sweep sets itself.
    """
    axes: dict[str, list[str]] = {}
    fixed = {override.partition("=")[0] for override in overrides}
    for text in given:
        key, equals, rest = text.partition("=")
        values = split_values(rest)
        if not key or not equals or not all(values) or "\n" in text:
            raise ConfigError(f"--sweep {text!r}: expected key=value,value, for example optim.lr=1e-3,3e-4")
        if key in axes:
            raise ConfigError(f"--sweep {key} is there twice; write its values once, with commas between them")
        if key in fixed:
            raise ConfigError(f"--sweep {key} is set by {key}=… as well; remove one")
        if key in OWN:
            raise ConfigError(f"--sweep {key}: every member of a sweep has its own by itself; sweep another key")
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ConfigError(f"--sweep {key}: the value {twice[0]} is there twice")
        axes[key] = values
    if not axes:
        raise ConfigError("--sweep has no key with several values; for example --sweep optim.lr=1e-3,3e-4")
    return list(itertools.product(*([f"{key}={value}" for value in values] for key, values in axes.items())))


def split_values(text: str) -> list[str]:
    """At the commas that stand outside of brackets, braces and quotes."""
    values, depth, quote, start = [], 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            values.append(text[start:place].strip())
            start = place + 1
    return [*values, text[start:].strip()]


def read_members(path: str) -> list[tuple[str, ...]]:
    """The members of a sweep that is no product of values: a line of overrides for each, quoted as in a shell.

    A member may have a `run.dir` and a `run.name` of its own.

    Raises:
        ConfigError: the file cannot be read, is empty, or has something else in it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        members = [tuple(shlex.split(line)) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"--members {path}: cannot be read: {error}") from None
    wrong = [text for member in members for text in member if not text.partition("=")[0] or "=" not in text]
    if not members or wrong:
        found = repr(wrong[0]) if wrong else "nothing"
        raise ConfigError(f"--members {path}: expected lines of key=value …, found {found}")
    return members


def own_value(member: Sequence[str], key: str) -> str | None:
    """What a member sets a key to; None: nothing."""
    values = [text.partition("=")[2] for text in member if text.partition("=")[0] == key]
    return values[-1] if values else None


def sweep_lines(members: Sequence[Sequence[str]], name: str) -> str:
    """The file that the batch script reads a member's overrides from: a line each, quoted as in a shell."""
    lines = []
    for number, member in enumerate(members):
        named = own_value(member, "run.name") is not None
        lines.append(shlex.join(member if named else (*member, f"run.name={name}-{number}")) + "\n")
    return "".join(lines)


def expand_tasks(text: str) -> list[int]:
    """The members that Slurm means by `0-3,7%2`."""
    tasks: list[int] = []
    for part in re.sub(r"%\d+$", "", text).split(","):
        first, _, last = part.partition("-")
        last, _, step = last.partition(":")
        if first.isdecimal():
            tasks += range(int(first), int(last or first) + 1, int(step or 1))
    return tasks
