from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import numpy as np
from pydantic import BaseModel, ConfigDict

from parallax.data.encode import EncodedRun
from parallax.data.meta import SavedShards, SplitMeta
from parallax.data.shards import ShardWriter
from parallax.data.split_rule import SplitName

SPLITS: tuple[SplitName, ...] = ("train", "val")


class SavedSplit(BaseModel):
    """How far a split was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int
    documents: int
    text_bytes: int
    files: SavedShards


@final
class CorpusWriter:
    """Writes runs of tokens to the shards of their splits, and counts. Used as a context manager.

    Args:
        folder: Where the shards go.
        dtype: Storage of an id.
        shard_tokens: Most ids in a file.
        saved: What `save` returned, to go on from there.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype[Any],
        shard_tokens: int,
        saved: dict[SplitName, SavedSplit] | None = None,
    ) -> None:
        before = saved or {}
        self._tokens: Counter[SplitName] = Counter({name: split.tokens for name, split in before.items()})
        self._documents: Counter[SplitName] = Counter({name: split.documents for name, split in before.items()})
        self._text_bytes: Counter[SplitName] = Counter({name: split.text_bytes for name, split in before.items()})
        self._stack = ExitStack()
        with self._stack:
            self._writers = {
                name: self._stack.enter_context(
                    ShardWriter(folder, name, dtype, shard_tokens, before[name].files if before else None)
                )
                for name in SPLITS
            }
            self._stack = self._stack.pop_all()

    def append(self, run: EncodedRun) -> None:
        """Adds a run at the end of its split."""
        self._writers[run.split].append(run.tokens)
        self._tokens[run.split] += run.tokens.size
        self._documents[run.split] += run.documents
        self._text_bytes[run.split] += run.text_bytes

    def save(self) -> dict[SplitName, SavedSplit]:
        """Waits until everything is on the disk, and returns what a writer needs to go on from here."""
        return {
            name: SavedSplit(
                tokens=self._tokens[name],
                documents=self._documents[name],
                text_bytes=self._text_bytes[name],
                files=writer.save(),
            )
            for name, writer in self._writers.items()
        }

    def splits(self) -> dict[SplitName, SplitMeta]:
        """What was written; complete once the writer was left."""
        return {
            name: SplitMeta(
                tokens=self._tokens[name],
                documents=self._documents[name],
                text_bytes=self._text_bytes[name],
                shards=tuple(writer.shards),
            )
            for name, writer in self._writers.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
