import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from parallax.data.hashing import hash_integers

CONTEXT_CHARS = 200
"""The most characters before a sentence that are shown with it."""
_WORD = re.compile(r"[\[(\"'“‘]?[^\W\d_]+(?:['’-][^\W\d_]+)*[\])\"'”’]?[,;:]?")
_LAST_WORD = re.compile(r"[\[(]?([^\W\d_]+)([\])]?[.!?])")
_BREAK = re.compile(r"(?<=[.!?])\s+(?=[\[(\"'“‘]?[^\W\d_])")
_BLOCK = re.compile(r"\n\s*\n")
_FEWEST_WORDS, _MOST_WORDS, _MOST_CHARS = 6, 30, 180


@dataclass(frozen=True)
class Sentence:
    """A sentence of plain words, and what stands before it."""

    words: tuple[str, ...]
    """With the marks that cling to them; the last ends in one of . ! ?"""
    context: str
    """At most `CONTEXT_CHARS` characters, from a word's start on; not empty."""

    @property
    def last(self) -> tuple[str, str]:
        """The last word and the marks after it."""
        found = _LAST_WORD.fullmatch(self.words[-1])
        assert found is not None
        return found[1], found[2]


@dataclass(frozen=True)
class Material:
    """What suites are made of."""

    documents: tuple[tuple[str, ...], ...]
    """Of each text its blocks: running text in which every run of white space is one space."""

    @property
    def blocks(self) -> list[str]:
        """The blocks of all texts."""
        return [block for blocks in self.documents for block in blocks]

    @cached_property
    def sentences(self) -> list[Sentence]:
        """All usable sentences, in the text's order; of equal ones the first."""
        found = (sentence for block in self.blocks for sentence in _sentences(block))
        return list({sentence.words: sentence for sentence in found}.values())

    @cached_property
    def frequencies(self) -> Counter[str]:
        """How often each word occurs, in small letters."""
        return Counter(word.lower() for block in self.blocks for word in re.findall(r"[^\W\d_]+", block))


def build_material(documents: Iterable[str]) -> Material:
    """Cuts texts into blocks at empty lines and joins the lines of a block."""
    cut = ([" ".join(block.split()) for block in _BLOCK.split(text)] for text in documents)
    return Material(tuple(tuple(filter(None, blocks)) for blocks in cut))


def ordered(count: int, *key: int) -> list[int]:
    """The numbers below `count` in an order that depends on the key only, the same on every machine."""
    return sorted(range(count), key=lambda number: (hash_integers(*key, number), number))


def _sentences(block: str) -> Iterable[Sentence]:
    start = 0
    for cut in [*_BREAK.finditer(block), None]:
        end = cut.start() if cut else len(block)
        words = tuple(block[start:end].split(" "))
        if start and _is_plain(words):
            yield Sentence(words, _before(block, start))
        start = cut.end() if cut else end


def _is_plain(words: tuple[str, ...]) -> bool:
    length = sum(map(len, words)) + len(words) - 1
    return (
        _FEWEST_WORDS <= len(words) <= _MOST_WORDS
        and length <= _MOST_CHARS
        and words[0][:1].isupper()
        and _LAST_WORD.fullmatch(words[-1]) is not None
        and all(_WORD.fullmatch(word) for word in words[:-1])
    )


def _before(block: str, start: int) -> str:
    """What stands before a place, without the space next to it."""
    first = max(0, start - 1 - CONTEXT_CHARS)
    context = block[first : start - 1]
    # A word that was cut is left out, unless it is all there is.
    return context[context.find(" ") + 1 :] if first and block[first - 1] != " " else context
