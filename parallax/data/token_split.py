from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, final

import numpy as np
import numpy.typing as npt

from parallax.data.tokenizer import IdArray
from parallax.errors import DataError

_COUNT_CHUNK_TOKENS = 1 << 22


@final
class TokenSplit:
    """One split as one sequence of N token ids, which may lie in several arrays or memory-mapped files.

    Args:
        shards: The ids, in order; none of them empty.
        vocab_size: V; an id that is not below it is damage.
        num_bytes: Bytes of the text in UTF-8, EOS not counted.
        source: Where the tokens come from, named in errors.
    """

    def __init__(
        self, shards: Sequence[npt.NDArray[Any]], *, vocab_size: int, num_bytes: int, source: str
    ) -> None:
        self._shards = shards
        self._starts = [0, *accumulate(shard.size for shard in shards)]
        self.vocab_size = vocab_size
        self.num_bytes = num_bytes
        self.source = source

    @property
    def num_tokens(self) -> int:
        """N, EOS included."""
        return self._starts[-1]

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text over tokens. A part of the split is taken to have as many bytes per token as the whole."""
        return self.num_bytes / self.num_tokens

    def read(self, start: int, length: int) -> IdArray:
        """The ids [start, start + length) as a new int64 array.

        Raises:
            IndexError: the range leaves the split.
            DataError: an id is not below the vocabulary size: a shard is damaged.
        """
        stop = start + length
        if start < 0 or length < 0 or stop > self.num_tokens:
            raise IndexError(f"tokens [{start}, {stop}) of a split of {self.num_tokens}")
        tokens = np.empty(length, dtype=np.int64)
        at = start
        index = bisect_right(self._starts, start) - 1
        while at < stop:
            begin = at - self._starts[index]
            part = self._shards[index][begin : begin + stop - at]
            tokens[at - start : at - start + part.size] = part
            at += part.size
            index += 1
        if length and tokens.max() >= self.vocab_size:
            self._raise_damaged(int(tokens.max()))
        return tokens

    def counts(self) -> IdArray:
        """(V,) occurrences of each id, read in pieces.

        Raises:
            DataError: an id is not below the vocabulary size: a shard is damaged.
        """
        total = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, self.num_tokens, _COUNT_CHUNK_TOKENS):
            tokens = self.read(start, min(_COUNT_CHUNK_TOKENS, self.num_tokens - start))
            total += np.bincount(tokens, minlength=self.vocab_size)
        return total

    def _raise_damaged(self, token: int) -> None:
        raise DataError(
            f"{self.source}: token id {token} is not in the vocabulary of {self.vocab_size}; the shards are "
            f"damaged: prepare the corpus again"
        )
