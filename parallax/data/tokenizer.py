from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from parallax.errors import TokenizerError

IdArray = npt.NDArray[np.int64]


class Tokenizer(Protocol):
    """Text to token ids and back.

    Plain text never encodes to a special id: a document that contains the characters `<|endoftext|>` gets
    ordinary tokens for them, so an end of document can only be put there by us. Decoding leaves special
    tokens out.
    """

    @property
    def vocab_size(self) -> int:
        """V: one more than the largest id, special tokens included."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that ends a document."""
        ...

    @property
    def unknown_id(self) -> int | None:
        """Id that stands for text the tokenizer has no other token for; None when it has one for everything."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of the serialised form; equal for tokenizers that encode alike."""
        ...

    def encode(self, text: str) -> IdArray:
        """Ids of `text`, without any special token.

        Raises:
            TokenizerError: `text` holds a lone surrogate, which UTF-8 cannot express.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """`encode` of each text, in parallel where the implementation can."""
        ...

    def decode(self, ids: Sequence[int] | IdArray) -> str:
        """Text of `ids`; special and unknown ids are left out, broken UTF-8 becomes U+FFFD."""
        ...

    def to_json(self) -> str:
        """What `tokenizer_from_json` reads back."""
        ...


def to_utf8(text: str) -> bytes:
    """UTF-8 of `text`.

    Raises:
        TokenizerError: `text` holds a lone surrogate; Python makes them of undecodable arguments and of JSON
            escapes.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of the text is the lone surrogate {text[error.start]!r}, which is not "
            f"valid Unicode; pass the text as UTF-8"
        ) from None


def check_same_tokenizer(tokenizer: Tokenizer, fingerprint: str, owner: str) -> None:
    """Checks that `tokenizer` is the one `owner` (a corpus, a checkpoint) was made with.

    Raises:
        TokenizerError: the fingerprints differ.
    """
    if tokenizer.fingerprint != fingerprint:
        raise TokenizerError(
            f"{owner} was made with another tokenizer (fingerprint {fingerprint[:12]}, given "
            f"{tokenizer.fingerprint[:12]}); use the tokenizer.json saved with it, or prepare the data again"
        )
