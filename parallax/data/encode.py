from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from parallax.data.documents import Document
from parallax.data.split_rule import SplitName
from parallax.data.tokenizer import IdArray, Tokenizer

BATCH_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class EncodedRun:
    """Consecutive tokens of one split, and what they were made of."""

    split: SplitName
    tokens: IdArray
    documents: int
    """Documents that end in this run."""
    text_bytes: int


@final
class DocumentEncoder:
    """Turns documents into tokens, an EOS after each, in batches of about 1 Mi characters.

    Batches let the tokenizers library use every core, and bound the memory that its encodings take (around a
    hundred bytes a token).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._eos = np.array([tokenizer.eos_id], dtype=np.int64)
        self._queue: list[tuple[SplitName, str | None]] = []  # None: the document ends
        self._queued_chars = 0

    def add(self, document: Document) -> Iterator[EncodedRun]:
        """Takes a document and yields what is due; a document without text leaves no trace, not even an EOS."""
        is_empty = True
        for piece in document.pieces:
            is_empty = False
            self._queue.append((document.split, piece))
            self._queued_chars += len(piece)
            if self._queued_chars >= BATCH_CHARS:
                yield from self.flush()
        if not is_empty:
            self._queue.append((document.split, None))

    def flush(self) -> Iterator[EncodedRun]:
        """Yields what is still queued."""
        queue, self._queue, self._queued_chars = self._queue, [], 0
        encoded = iter(self._tokenizer.encode_batch([piece for _, piece in queue if piece is not None]))
        arrays = [self._eos if piece is None else next(encoded) for _, piece in queue]
        splits: tuple[SplitName, ...] = ("train", "val")
        for split in splits:
            mine = [index for index, (of, _) in enumerate(queue) if of == split]
            if mine:
                pieces = [queue[index][1] for index in mine]
                yield EncodedRun(
                    split=split,
                    tokens=np.concatenate([arrays[index] for index in mine]),
                    documents=pieces.count(None),
                    text_bytes=sum(len(piece.encode("utf-8")) for piece in pieces if piece is not None),
                )
