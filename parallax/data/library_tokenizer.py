import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
from tokenizers import Tokenizer as Engine

from parallax.data.tokenizer import IdArray, to_utf8
from parallax.errors import TokenizerError

_COMMON_EOS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>")


@final
class LibraryTokenizer:
    """A tokenizer of the Hugging Face `tokenizers` library with a known end-of-document token.

    Post-processing (BOS, [CLS] and the like), truncation and padding that the file may ask for are switched
    off: a corpus holds exactly the tokens of its text and one EOS after each document.

    Args:
        definition: Content of a `tokenizer.json`. It is kept as it is, so that the fingerprint does not
            depend on how a later version of the library would write it.
        eos: Content of the token that ends a document; found among the customary ones when not given.

    Raises:
        TokenizerError: the library cannot read the definition, or it has no such token.
    """

    def __init__(self, definition: Mapping[str, Any], eos: str | None = None) -> None:
        self._definition = definition
        self._engine = _build_engine(definition)
        vocabulary = self._engine.get_vocab(with_added_tokens=True)
        self._eos = _choose_eos(vocabulary, eos)
        # Ids may have gaps, so the number of entries can be less than what an embedding needs.
        self.vocab_size = max(vocabulary.values()) + 1
        self.eos_id = vocabulary[self._eos]
        self.unknown_id = _unknown_id(definition, vocabulary)
        self._engine.add_special_tokens([self._eos])
        self._engine.encode_special_tokens = True

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the definition and the EOS, whatever the order of keys."""
        canonical = json.dumps(self._serialised(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str) -> IdArray:
        """Ids of `text`, special tokens in it spelled out."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """`encode` of each text, spread over the processor's cores by the library."""
        for text in texts:
            if not text.isascii():
                to_utf8(text)
        encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids: Sequence[int] | IdArray) -> str:
        """Text of `ids` without special tokens."""
        array = np.asarray(ids, dtype=np.int64)
        known = array[(array >= 0) & (array < self.vocab_size)]
        return str(self._engine.decode(known.tolist(), skip_special_tokens=True))

    def to_json(self) -> str:
        """The definition and the EOS beside it."""
        return json.dumps(self._serialised())

    def _serialised(self) -> dict[str, Any]:
        return {"type": "library", "eos": self._eos, "tokenizer": self._definition}


def _build_engine(definition: Mapping[str, Any]) -> Engine:
    try:
        engine = Engine.from_str(json.dumps(definition))
    except Exception as error:  # the library raises bare Exceptions
        raise TokenizerError(f"not a tokenizer that the tokenizers library reads: {error}") from None
    engine.no_truncation()
    engine.no_padding()
    return engine


def _unknown_id(definition: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int | None:
    """Models name the unknown token by its content, the Unigram model by its id."""
    model = definition.get("model") or {}
    by_id = model.get("unk_id")
    return by_id if by_id is not None else vocabulary.get(model.get("unk_token") or "")


def _choose_eos(vocabulary: Mapping[str, int], eos: str | None) -> str:
    if not vocabulary:
        raise TokenizerError("the tokenizer has no tokens; train it or take another")
    if eos is not None:
        if eos not in vocabulary:
            raise TokenizerError(f"the end-of-document token {eos!r} is not in the tokenizer's vocabulary")
        return eos
    for candidate in _COMMON_EOS:
        if candidate in vocabulary:
            return candidate
    raise TokenizerError(
        f"the tokenizer has none of the end-of-document tokens {', '.join(_COMMON_EOS)}; put a "
        f'tokenizer_config.json with {{"eos_token": "…"}} beside it'
    )
