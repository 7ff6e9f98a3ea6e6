import re
from collections.abc import Iterable, Iterator

PIECE_CHARS = 1 << 16

_BETWEEN_WORDS = re.compile(r"\S\n(?=\S)")
_BEFORE_SPACE = re.compile(r"\S(?= \S)")
_AFTER_WHITESPACE = re.compile(r"\s")
_PREFERENCES = (_BETWEEN_WORDS, _BEFORE_SPACE, _AFTER_WHITESPACE)


def cut_pieces(chunks: Iterable[str], piece_chars: int = PIECE_CHARS) -> Iterator[str]:
    """Cuts a text that arrives in chunks into pieces of at most `piece_chars` characters that tokenise alike.

    A piece ends, in this order of preference, after a newline between two characters that are not white space,
    before a single space between two such, after any white space, or at its full length; the first two
    leave the word splitting of byte-level BPE as it is for the whole text, so that the tokens of the
    pieces put together are the tokens of the whole. (A tokenizer that puts a space before every text it is
    given, as SentencePiece does, puts one before every piece.) At most two chunks or pieces are held.
    """
    rest = ""
    for chunk in chunks:
        rest += chunk
        start = 0
        # One character beyond the piece must be known: whether a newline stands between two words depends on it.
        while len(rest) - start > piece_chars:
            end = find_cut(rest, start, start + piece_chars)
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def find_cut(text: str, start: int, stop: int) -> int:
    """Where to end a piece of `text[start:stop]`; in the second half of it, unless there is nothing fit there.

    `text` must reach beyond `stop`.
    """
    middle = (start + stop) // 2
    for pattern in _PREFERENCES:
        end = _last_end(pattern, text, middle, stop)
        if end is not None:
            return end
    return stop


def _last_end(pattern: re.Pattern[str], text: str, start: int, stop: int) -> int | None:
    """End of the last match inside `[start, stop)`, looked for in growing windows from the back."""
    width = 256
    while True:
        low = max(start, stop - width)
        ends = [
            match.end() for match in pattern.finditer(text, low, min(stop + 2, len(text))) if match.end() <= stop
        ]
        if ends:
            return ends[-1]
        if low == start:
            return None
        width *= 8
