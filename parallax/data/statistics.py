from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

from parallax.data.tokenizer import Tokenizer

_SHOWN_DOCUMENTS = 2
_SHOWN_TOKENS = 200


@dataclass(frozen=True)
class DocumentLengths:
    """How long documents are, in tokens without the EOS."""

    count: int
    mean: float
    median: int
    shortest: int
    longest: int
    histogram: list[tuple[int, int, int]]
    """(from, up to, documents): from powers of two."""


@dataclass
class Occurrence:
    """A token and how often it occurs."""

    token: str
    id: int
    count: int
    share: float


@final
@dataclass
class TokenStatistics:
    """Counts over tokens that arrive in chunks, in the order of the text. Takes four bytes a document."""

    tokenizer: Tokenizer
    _counts: npt.NDArray[np.int64] = field(init=False)
    _lengths: list[npt.NDArray[np.uint32]] = field(default_factory=list, init=False)
    _open_tokens: int = field(default=0, init=False)
    _first: list[npt.NDArray[np.int64]] = field(default_factory=list, init=False)
    _num_first: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._counts = np.zeros(self.tokenizer.vocab_size, dtype=np.int64)

    def add(self, tokens: npt.NDArray[Any]) -> None:
        """Takes the next tokens."""
        if not tokens.size:
            return
        self._counts += np.bincount(tokens, minlength=self._counts.size)
        ends = np.flatnonzero(tokens == self.tokenizer.eos_id)
        if ends.size:
            lengths = np.diff(ends, prepend=-1 - self._open_tokens) - 1
            self._lengths.append(lengths.astype(np.uint32))
            self._open_tokens = tokens.size - 1 - int(ends[-1])
        else:
            self._open_tokens += tokens.size
        if self._num_first < 1 << 16:
            self._first.append(tokens[: 1 << 16].astype(np.int64))
            self._num_first += self._first[-1].size

    @property
    def num_tokens(self) -> int:
        """All tokens, EOS included."""
        return int(self._counts.sum())

    @property
    def num_used(self) -> int:
        """Different ids that occur."""
        return int(np.count_nonzero(self._counts))

    @property
    def num_unknown(self) -> int:
        """Occurrences of the unknown token."""
        unknown = self.tokenizer.unknown_id
        return 0 if unknown is None else int(self._counts[unknown])

    def most_frequent(self, count: int) -> list[Occurrence]:
        """The most frequent tokens; of equal ones the smaller id first."""
        total = max(self.num_tokens, 1)
        order = np.argsort(-self._counts, kind="stable")[:count]
        return [
            Occurrence(self._name(int(index)), int(index), int(self._counts[index]), self._counts[index] / total)
            for index in order
            if self._counts[index]
        ]

    def lengths(self) -> DocumentLengths | None:
        """Of the documents that ended, and what stands after the last; None when there is none."""
        rest = [np.array([self._open_tokens], dtype=np.uint32)] if self._open_tokens else []
        if not (parts := [*self._lengths, *rest]):
            return None
        lengths = np.concatenate(parts)
        bins = np.bincount(np.frexp(lengths.astype(np.float64))[1])
        histogram = [
            (1 << power >> 1, max((1 << power) - 1, 0), int(bins[power]))
            for power in range(int(np.flatnonzero(bins)[0]), bins.size)
        ]
        return DocumentLengths(
            count=lengths.size,
            mean=float(lengths.mean()),
            median=int(np.median(lengths)),
            shortest=int(lengths.min()),
            longest=int(lengths.max()),
            histogram=histogram,
        )

    def first_documents(self) -> list[str]:
        """The beginnings of the first documents, decoded."""
        if not self._first:
            return []
        tokens = np.concatenate(self._first)
        parts = np.split(tokens, np.flatnonzero(tokens == self.tokenizer.eos_id)[:_SHOWN_DOCUMENTS] + 1)
        return [self.tokenizer.decode(part[:_SHOWN_TOKENS]) for part in parts[:_SHOWN_DOCUMENTS] if part.size]

    def _name(self, token: int) -> str:
        if token == self.tokenizer.eos_id:
            return "end of document"
        if token == self.tokenizer.unknown_id:
            return "unknown"
        return repr(self.tokenizer.decode([token]))
