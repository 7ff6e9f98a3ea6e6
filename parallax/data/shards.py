import hashlib
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, final

import numpy as np

from parallax.data.meta import ShardMeta
from parallax.data.split_rule import SplitName
from parallax.data.tokenizer import IdArray


@final
class ShardWriter:
    """Writes a sequence of token ids to files of at most `shard_tokens` ids each, checksummed as they are written.

    Used as a context manager; `shards` is complete after it. No file is made before there is a token for it.
    """

    def __init__(self, folder: Path, split: SplitName, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.shards: list[ShardMeta] = []
        self._folder = folder
        self._split = split
        self._dtype = dtype
        self._shard_tokens = shard_tokens
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._written = 0

    def append(self, tokens: IdArray) -> None:
        """Adds `tokens` at the end, starting new files where one is full."""
        left = tokens.astype(self._dtype)
        while left.size:
            if self._file is None:
                self._start()
            room = self._shard_tokens - self._written
            self._write(left[:room])
            left = left[room:]
            if self._written == self._shard_tokens:
                self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._finish()

    @property
    def _name(self) -> str:
        return f"{self._split}-{len(self.shards):05d}.bin"

    def _start(self) -> None:
        self._file = (self._folder / self._name).open("wb")
        self._hash = hashlib.sha256()
        self._written = 0

    def _write(self, tokens: np.ndarray[Any, np.dtype[Any]]) -> None:
        assert self._file is not None
        data = tokens.tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._written += tokens.size

    def _finish(self) -> None:
        assert self._file is not None
        file, self._file = self._file, None
        file.close()
        self.shards.append(ShardMeta(name=self._name, tokens=self._written, sha256=self._hash.hexdigest()))
