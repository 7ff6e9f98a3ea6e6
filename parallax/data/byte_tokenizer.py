import hashlib
import json
from collections.abc import Sequence
from typing import final

import numpy as np

from parallax.data.tokenizer import IdArray, to_utf8

NUM_BYTES = 256


@final
class ByteTokenizer:
    """Token id = byte of the UTF-8 text; id 256 ends a document. Lossless, V = 257."""

    vocab_size = NUM_BYTES + 1
    eos_id = NUM_BYTES
    unknown_id = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the serialised form."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def encode(self, text: str) -> IdArray:
        """The bytes of `text` in UTF-8, as int64."""
        return np.frombuffer(to_utf8(text), dtype=np.uint8).astype(np.int64)

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int] | IdArray) -> str:
        """Text of the ids below 256; bytes that are not UTF-8 become U+FFFD."""
        array = np.asarray(ids, dtype=np.int64)
        return (
            array[(array >= 0) & (array < NUM_BYTES)].astype(np.uint8).tobytes().decode("utf-8", errors="replace")
        )

    def to_json(self) -> str:
        """There is nothing to store but the kind."""
        return json.dumps({"type": "byte"})
