from collections.abc import Callable

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MOST_PENDING = 3
"""A UTF-8 character has at most four bytes, so at most three of them can be waiting for the last."""


class TextStream:
    """Text of tokens that arrive one by one, in complete characters.

    A token may end inside a character (a byte, or a byte-level BPE piece): decoders show the beginning of a
    character as up to three U+FFFD, which are held back until more tokens settle them. The pieces returned
    by `push` and `finish`, joined, are `decode` of all tokens.

    Only the tokens since the last complete character, and the ones before that as context for decoders that
    treat the beginning of a text differently, are decoded again at each step: the cost does not grow with
    the text.

    Args:
        decode: token ids to text. Text that is complete must not change when more tokens follow, which
            byte, character, byte-level BPE and metaspace decoders fulfil.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._open: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Takes one token; returns the text that it completed, often a character or word, sometimes ""."""
        self._open.append(token)
        text = self._decode(self._context + self._open)
        complete = len(text) - _pending(text)
        piece = text[self._shown : complete]
        self._shown = complete
        # A token without text is no context: the next would look like the beginning of a text again.
        if piece and complete == len(text):
            self._context, self._open = self._open, []
            self._shown = len(self._decode(self._context))
        return piece

    def finish(self) -> str:
        """What was held back, as the decoder shows it; the stream is then ready for another text."""
        rest = self._decode(self._context + self._open)[self._shown :]
        self._context, self._open, self._shown = [], [], 0
        return rest


def _pending(text: str) -> int:
    """How many characters at the end may still turn into another character."""
    return min(len(text) - len(text.rstrip(_REPLACEMENT)), _MOST_PENDING)
