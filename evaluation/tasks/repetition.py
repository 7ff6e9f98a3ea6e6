from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evaluation.jackknife import Estimate, jackknife, ratio

REPEATED_SIZES = (2, 3, 4)
DISTINCT_SIZES = (1, 2, 3)

Words = Sequence[str]


@dataclass(frozen=True)
class Repetition:
    """How much texts repeat themselves."""

    texts: int
    words: int
    """In all of them."""
    repeated: dict[int, Estimate]
    """n -> share of the n-grams of a text that stood in it before; interval over texts."""
    longest_repeat: Estimate
    """Words of the longest sequence that a text has twice, overlapping or not; mean over texts."""
    distinct: dict[int, float]
    """n -> distinct n-grams of all texts together, over all n-grams. Falls as texts get longer or more, so it is
    compared between equally many words only."""


def measure_repetition(texts: Sequence[Words]) -> Repetition:
    """Figures of at least 2 texts of at least 4 words each."""
    repeated = {}
    for size in REPEATED_SIZES:
        grams = [_grams(words, size) for words in texts]
        again = np.array([len(one) - len(set(one)) for one in grams], dtype=np.float64)
        repeated[size] = jackknife((again, np.array([float(len(one)) for one in grams])), ratio).at()
    longest = np.array([float(longest_repeat(words)) for words in texts])
    distinct = {}
    for size in DISTINCT_SIZES:
        together = [gram for words in texts for gram in _grams(words, size)]
        distinct[size] = len(set(together)) / len(together)
    return Repetition(
        texts=len(texts),
        words=sum(map(len, texts)),
        repeated=repeated,
        longest_repeat=jackknife((longest, np.ones(len(texts))), ratio).at(),
        distinct=distinct,
    )


def longest_repeat(words: Words) -> int:
    """Length of the longest sequence of words that begins at two places."""
    # Neighbours in the sorted order of all endings share the longest beginnings.
    endings = sorted(tuple(words[start:]) for start in range(len(words)))
    longest = 0
    for one, two in pairwise(endings):
        shared = next(
            (n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
        )
        longest = max(longest, shared)
    return longest


def _grams(words: Words, size: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
