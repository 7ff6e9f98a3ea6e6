import hashlib
from typing import final

from parallax.data.split_rule import SplitName

Digests = dict[SplitName, str]
"""SHA-256 of the text of each split, in hexadecimal."""

_DOCUMENT_END = b"\xff"


@final
class TextDigest:
    """Running SHA-256 over the text of each split and where its documents end, not over how it was cut."""

    def __init__(self) -> None:
        self._hashes: dict[SplitName, hashlib._Hash] = {"train": hashlib.sha256(), "val": hashlib.sha256()}

    def add(self, split: SplitName, piece: str | None) -> None:
        """Takes the next piece of text; None ends a document (as a byte that UTF-8 never has)."""
        self._hashes[split].update(_DOCUMENT_END if piece is None else piece.encode("utf-8", "surrogatepass"))

    def digests(self) -> Digests:
        """Of everything taken so far."""
        return {split: running.hexdigest() for split, running in self._hashes.items()}
