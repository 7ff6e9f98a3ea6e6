import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, final

import numpy as np
import numpy.typing as npt

from parallax.data.meta import SavedShards, ShardMeta
from parallax.data.split_rule import SplitName
from parallax.errors import UnfinishedError

_READ_BYTES = 1 << 22


@final
class ShardWriter:
    """Writes a sequence of token ids to files of at most `shard_tokens` ids each, checksummed as they are written.

    Used as a context manager; `shards` is complete after it. No file is made before there is a token for it.

    Args:
        folder: Where the files go.
        split: The beginning of their names.
        dtype: Storage of an id.
        shard_tokens: Most ids in a file.
        saved: What `save` returned before the writer was last cut off; everything after it is written anew.

    Raises:
        UnfinishedError: the files are not what was saved.
    """

    def __init__(
        self,
        folder: Path,
        split: SplitName,
        dtype: np.dtype[Any],
        shard_tokens: int,
        saved: SavedShards | None = None,
    ) -> None:
        self.shards: list[ShardMeta] = []
        self._folder = folder
        self._split = split
        self._dtype = dtype
        self._shard_tokens = shard_tokens
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._written = 0
        self._unsynced: list[Path] = []
        if saved is not None:
            self._continue(saved)

    def append(self, tokens: npt.NDArray[Any]) -> None:
        """Adds `tokens` at the end, starting new files where one is full."""
        left = tokens.astype(self._dtype, copy=False)
        while left.size:
            if self._file is None:
                self._start()
            room = self._shard_tokens - self._written
            self._write(left[:room])
            left = left[room:]
            if self._written == self._shard_tokens:
                self._finish()

    def save(self) -> SavedShards:
        """Waits until everything is on the disk, and returns what a writer needs to go on from here."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        for path in self._unsynced:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        self._unsynced.clear()
        return SavedShards(shards=tuple(self.shards), open_tokens=self._written if self._file else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._finish()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._split}-{len(self.shards):05d}.bin"

    def _continue(self, saved: SavedShards) -> None:
        for shard in saved.shards:
            self._check_size(self._folder / shard.name, shard.tokens)
        self.shards = list(saved.shards)
        if saved.open_tokens:
            self._check_size(self._path, saved.open_tokens)
            self._reopen(saved.open_tokens)

    def _check_size(self, path: Path, tokens: int) -> None:
        found = path.stat().st_size if path.is_file() else 0
        if found < tokens * self._dtype.itemsize:
            raise UnfinishedError(
                f"{path}: {found} bytes, expected {tokens * self._dtype.itemsize} from the work that is to be "
                f"continued; remove {self._folder.parent} to begin anew"
            )

    def _reopen(self, tokens: int) -> None:
        size = tokens * self._dtype.itemsize
        file = self._path.open("r+b")
        self._file = file
        file.truncate(size)
        while part := file.read(_READ_BYTES):
            self._hash.update(part)
        self._written = tokens

    def _start(self) -> None:
        self._file = self._path.open("wb")
        self._hash = hashlib.sha256()
        self._written = 0

    def _write(self, tokens: npt.NDArray[Any]) -> None:
        assert self._file is not None
        data = tokens.tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._written += tokens.size

    def _finish(self) -> None:
        assert self._file is not None
        path, file, self._file = self._path, self._file, None
        file.close()
        self._unsynced.append(path)
        self.shards.append(ShardMeta(name=path.name, tokens=self._written, sha256=self._hash.hexdigest()))
