from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.data.token_split import TokenSplit

PROSE = "".join(f"Line {n} of the {n % 7}th chapter says something about {n * n}.\n" for n in range(400))


@pytest.fixture
def prose() -> str:
    """400 lines, about 20 kB."""
    return PROSE


@pytest.fixture
def write_corpus_of(tmp_path: Path) -> Callable[..., Corpus]:
    """Prepares a corpus of one text file; keyword arguments are those of `prepare`."""

    def write(text: str = PROSE, **options: Any) -> Corpus:
        file = tmp_path / "text.txt"
        file.write_bytes(text.encode())
        prepare(file, tmp_path / "corpus", **options)
        return Corpus.open(tmp_path / "corpus")

    return write


@pytest.fixture
def split_of() -> Callable[..., TokenSplit]:
    """A split in memory with the given ids, or with 0, 1, 2 … so that a token is its own position."""

    def make(tokens: int | list[int], *, vocab_size: int = 1 << 20, shard_tokens: int = 1 << 30) -> TokenSplit:
        ids = np.arange(tokens, dtype="<u4") if isinstance(tokens, int) else np.array(tokens, dtype="<u4")
        shards = [ids[start : start + shard_tokens] for start in range(0, ids.size, shard_tokens)]
        return TokenSplit(shards, vocab_size=vocab_size, num_bytes=3 * ids.size, source="the test split")

    return make
