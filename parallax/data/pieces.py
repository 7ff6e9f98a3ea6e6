from collections.abc import Iterable, Iterator

PIECE_CHARS = 1 << 16


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
        # One character beyond the piece must be known: whether white space stands between words depends on it.
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
    newline = _last_single(text, "\n", middle, stop)
    if newline is not None:
        return newline + 1
    space = _last_single(text, " ", middle, stop)
    if space is not None:
        return space
    half = text[middle:stop]
    word = 0 if half[-1].isspace() else len(half.rsplit(None, 1)[-1])
    return stop - word if word < len(half) else stop


def _last_single(text: str, mark: str, start: int, stop: int) -> int | None:
    """Index of the last `mark` in `text[start:stop]` whose neighbours are both not white space."""
    at = text.rfind(mark, start, stop)
    while at > start and (text[at - 1].isspace() or text[at + 1].isspace()):
        at = text.rfind(mark, start, at)
    return at if at > start else None
