import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from parallax.errors import DataError

CLOZE, PAIRS, GENERATION = "cloze", "minimal_pairs", "generation"
SUITES = (CLOZE, PAIRS, GENERATION)


@dataclass(frozen=True)
class Item:
    """One question: which of the choices follows the context."""

    suite: str
    """Of `SUITES`."""
    kind: str
    """What was done to the sentence, within the suite."""
    context: str
    choices: tuple[str, ...]
    """Each follows the context as it is, its space included."""
    answer: int = 0
    """Which choice the text has; the others were made."""


def to_jsonl(items: Sequence[Item]) -> str:
    """One line for each item; equal items give equal text."""
    return "".join(json.dumps(asdict(item), ensure_ascii=False, sort_keys=True) + "\n" for item in items)


def fingerprint(items: Sequence[Item]) -> str:
    """SHA-256 of the items: models with the same were asked the same."""
    return hashlib.sha256(to_jsonl(items).encode()).hexdigest()


def read_items(path: Path) -> list[Item]:
    """Items that were written before.

    Raises:
        DataError: no such file, or a line that is no item.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; give the items.jsonl of an earlier --output") from None
    if not lines:
        raise DataError(f"{path}: no items in it; give the items.jsonl of an earlier --output")
    return [_read_item(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _read_item(line: str, where: str) -> Item:
    try:
        fields = json.loads(line)
        item = Item(**{**fields, "choices": tuple(fields["choices"])})
        texts = (item.suite, item.kind, item.context, *item.choices)
        usable = all(isinstance(text, str) for text in texts) and item.suite in SUITES
        usable = usable and all(item.choices) and 0 <= item.answer < len(item.choices)
    except (ValueError, TypeError, KeyError):
        usable = False
    if not usable:
        raise DataError(f"{where}: damaged, not an item; write the items again with --corpus")
    return item


def enough(items: list[Item], wanted: int, what: str) -> list[Item]:
    """The first `wanted` items.

    Raises:
        DataError: there are fewer.
    """
    if len(items) < wanted:
        option = "texts" if items and items[0].suite == GENERATION else "items"
        way_out = f"--{option} {len(items)} or fewer" if items else "leave this suite out of --tasks"
        raise DataError(f"the text gives {len(items)} of {wanted} items of {what}; give more text, or {way_out}")
    return items[:wanted]
