import math
from collections import Counter
from pathlib import Path
from typing import Literal, final

from parallax.data.hashing import hash_integers
from parallax.data.text_reader import open_binary
from parallax.errors import DataError

SplitName = Literal["train", "val"]
ValRule = Literal["none", "documents", "tails", "documents and tails"]

_REACH_BYTES = 1 << 20
_SPLIT_SALT = 0x5A11D


@final
class DocumentSplit:
    """Chooses the split of one document after the other: held out when hash(ordinal) / 2^64 < `val_fraction`.

    The choice depends on nothing but the document's place in the input, so the same input is divided alike
    everywhere.
    """

    def __init__(self, val_fraction: float) -> None:
        self.num_chosen = 0
        self.lowest = 1.0
        """The smallest hash(ordinal) / 2^64 so far: a larger fraction than this holds a document out."""
        self._val_fraction = val_fraction

    def choose(self) -> SplitName:
        """The split of the next document."""
        share = hash_integers(_SPLIT_SALT, self.num_chosen) / 2**64
        self.num_chosen += 1
        self.lowest = min(self.lowest, share)
        return "val" if share < self._val_fraction else "train"


def tail_start(path: Path, val_fraction: float) -> int:
    """Byte at which the held-out tail of a text file starts, after about 1 - `val_fraction` of its bytes.

    The cut is after the first newline from there on, else after the last one before, each within 1 MiB; in a file
    that is one long line, before the next space; else between two characters. A file that cannot be cut into two
    parts gets its own size.
    """
    size = path.stat().st_size
    target = int(size * (1 - val_fraction))
    with open_binary(path) as file:
        file.seek(max(0, target - _REACH_BYTES))
        behind = file.read(min(target, _REACH_BYTES))
        ahead = file.read(_REACH_BYTES)
    after_newline = target + ahead.find(b"\n") + 1
    if target < after_newline < size:
        return after_newline
    if (before := behind.rfind(b"\n")) >= 0:
        return target - len(behind) + before + 1
    if (space := ahead.find(b" ")) >= 0:
        return max(target + space, 1)
    inside = next((at for at, byte in enumerate(ahead) if byte & 0xC0 != 0x80), len(ahead))
    return target + inside or size


def check_split(found: Counter[SplitName], hashed: DocumentSplit, val_fraction: float) -> None:
    """Checks that no split that was asked for stayed without documents.

    Args:
        found: Documents of each split.
        hashed: What chose among whole documents, when any were chosen so.
        val_fraction: The share asked for.

    Raises:
        DataError: there is no document, or none held out, or none left to train on.
    """
    if not found.total():
        raise DataError("the input holds no text: every document is empty")
    if val_fraction and not found["val"]:
        if hashed.num_chosen > 1:
            enough = math.ceil((hashed.lowest + 1e-9) * 1000) / 1000
            raise DataError(
                f"none of the {hashed.num_chosen} documents falls into the validation split at "
                f"val_fraction={val_fraction}; --val-fraction {enough} holds one out, 0 makes no such split"
            )
        raise DataError(
            f"the text is too short to hold out val_fraction={val_fraction} of it; give more text, or "
            f"--val-fraction 0 for no validation split"
        )
    if not found["train"]:
        raise DataError(
            f"val_fraction={val_fraction} holds out all {found['val']} documents and leaves none to train on; "
            f"give more documents or a smaller --val-fraction"
        )
