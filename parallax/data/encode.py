from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from parallax.data.documents import Document
from parallax.data.split_rule import SplitName
from parallax.data.text_digest import Digests, TextDigest
from parallax.data.text_reader import ReadTally
from parallax.data.tokenizer import Tokenizer

BATCH_CHARS = 1 << 20
_ENTRY_CHARS = 16
"""What a piece counts besides its characters, so that a batch of very short documents stays small."""

Pieces = list[tuple[SplitName, str | None]]
"""Consecutive pieces of text with their splits; None: the document ends."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A portion of the input, about 1 Mi characters; where it ends follows from the input alone."""

    pieces: Pieces
    num_chars: int
    bytes_read: int
    """Of the input, up to the end of this batch."""
    digests: Digests
    """Of all text up to the end of this batch."""


@dataclass(frozen=True, slots=True)
class EncodedRun:
    """Consecutive tokens of one split, and what they were made of."""

    split: SplitName
    tokens: npt.NDArray[Any]
    documents: int
    """Documents that end in this run."""
    text_bytes: int


def cut_batches(documents: Iterable[Document], tally: ReadTally) -> Iterator[Batch]:
    """Cuts documents into batches; a document without text leaves no trace, not even an EOS.

    Batches let work be spread over processes, and bound the memory that encodings take (around a hundred bytes
    a token).
    """
    digest = TextDigest()
    pieces: Pieces = []
    num_chars = 0

    def take(split: SplitName, piece: str | None) -> None:
        nonlocal num_chars
        pieces.append((split, piece))
        digest.add(split, piece)
        num_chars += _ENTRY_CHARS + len(piece or "")

    def close() -> Batch:
        nonlocal pieces, num_chars
        batch = Batch(pieces, num_chars, tally.bytes_read, digest.digests())
        pieces, num_chars = [], 0
        return batch

    for document in documents:
        is_empty = True
        for piece in document.pieces:
            is_empty = False
            take(document.split, piece)
            if num_chars >= BATCH_CHARS:
                yield close()
        if not is_empty:
            take(document.split, None)
    if pieces:
        yield close()


def encode_pieces(tokenizer: Tokenizer, pieces: Pieces, dtype: np.dtype[Any]) -> list[EncodedRun]:
    """The tokens of a batch, an EOS after each document, as one run for each split that occurs in it."""
    encoded = iter(tokenizer.encode_batch([piece for _, piece in pieces if piece is not None]))
    eos = np.array([tokenizer.eos_id], dtype=dtype)
    arrays = [eos if piece is None else next(encoded).astype(dtype) for _, piece in pieces]
    runs = []
    splits: tuple[SplitName, ...] = ("train", "val")
    for split in splits:
        mine = [index for index, (of, _) in enumerate(pieces) if of == split]
        if mine:
            texts = [pieces[index][1] for index in mine]
            runs.append(
                EncodedRun(
                    split=split,
                    tokens=np.concatenate([arrays[index] for index in mine]),
                    documents=texts.count(None),
                    text_bytes=sum(len(text.encode("utf-8")) for text in texts if text is not None),
                )
            )
    return runs
