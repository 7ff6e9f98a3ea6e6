from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

from parallax.data.build_tokenizer import build_tokenizer
from parallax.data.corpus_writer import CorpusWriter, SavedSplit
from parallax.data.documents import DocumentSource
from parallax.data.encode import Batch, cut_batches
from parallax.data.encode_pool import encode_batches
from parallax.data.meta import (
    FORMAT_VERSION,
    META_FILE,
    CorpusMeta,
    SplitMeta,
    StorageType,
    storage_dtype,
    storage_type,
)
from parallax.data.split_rule import SplitName
from parallax.data.text_digest import Digests, TextDigest
from parallax.data.text_reader import ReadTally
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import TOKENIZER_FILE
from parallax.errors import DataError, UnfinishedError
from parallax.runtime.files import staged_directory, write_text_atomic

SHARD_TOKENS = 1 << 27

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) now and then and at the end; in all 0: not known."""


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """How a corpus is written, besides what is in it."""

    tokenizer: str
    """Specification, see `build_tokenizer`."""
    val_fraction: float
    """For the record; the source has the split."""
    inputs: tuple[str, ...]
    """For the record."""
    shard_tokens: int = SHARD_TOKENS
    dtype: StorageType | None = None
    """Storage of an id; the smallest that holds every one when None."""
    num_workers: int = 1


@dataclass(frozen=True)
class Done:
    """What of the input is encoded and safe on the disk."""

    batches: int
    bytes_read: int
    digests: Digests
    """Of the text up to there."""
    splits: dict[SplitName, SavedSplit]


def write_corpus(
    source: DocumentSource,
    output: Path,
    *,
    tokenizer: str,
    val_fraction: float,
    inputs: tuple[str, ...],
    progress: Progress | None = None,
) -> CorpusMeta:
    """Encodes a source into a new corpus folder in one go; the folder appears complete or not at all.

    Raises:
        DataError: the text is unusable, or there is none.
        TokenizerError: the tokenizer cannot be had.
        OSError: the folder exists, came into being meanwhile, or cannot be written.
    """
    settings = CorpusSettings(tokenizer=tokenizer, val_fraction=val_fraction, inputs=inputs)
    built, _ = learn_tokenizer(source, tokenizer)
    with staged_directory(output) as folder:
        return CorpusEncoder(source, built, settings, folder).write(progress)


def learn_tokenizer(
    source: DocumentSource, spec: str, progress: Progress | None = None
) -> tuple[Tokenizer, Digests]:
    """The tokenizer that `spec` names, and the digests of the text it was learned from, if it was.

    A tokenizer that has to be learned reads the source, BPE the training documents only, char all of them, so
    that no character of the corpus is unknown.

    Args:
        source: The documents.
        spec: Specification, see `build_tokenizer`.
        progress: Told about the reading; (0, 0) when all is read and learning goes on.
    """
    digest = TextDigest()

    def texts() -> Iterator[str]:
        tally = ReadTally()
        total = source.total_bytes
        for document in source.documents(tally):
            if document.split == "train" or spec == "char":
                is_empty = True
                for piece in document.pieces:
                    is_empty = False
                    digest.add(document.split, piece)
                    yield piece
                    if progress is not None:
                        progress(tally.bytes_read, total)
                if not is_empty:
                    digest.add(document.split, None)
        if progress is not None:
            progress(0, 0)

    built = build_tokenizer(spec, texts)
    unread = TextDigest().digests()
    return built, {split: found for split, found in digest.digests().items() if found != unread[split]}


@final
class CorpusEncoder:
    """Encodes a source into a folder: shards, `tokenizer.json`, and at last `meta.json`.

    Args:
        source: The documents.
        tokenizer: What to encode them with.
        settings: How.
        folder: An empty one, or one that holds what `done` says.
        done: Where to go on: what of the input is only read and compared, not encoded.
        learned_from: Digests of the text that the tokenizer was learned from; the text must still be the same.
    """

    def __init__(
        self,
        source: DocumentSource,
        tokenizer: Tokenizer,
        settings: CorpusSettings,
        folder: Path,
        *,
        done: Done | None = None,
        learned_from: Digests | None = None,
    ) -> None:
        self._source = source
        self._tokenizer = tokenizer
        self._settings = settings
        self._folder = folder
        self._done = done
        self._learned_from = learned_from or {}
        self._storage = settings.dtype or storage_type(tokenizer.vocab_size)

    def write(
        self,
        progress: Progress | None = None,
        save_due: Callable[[], bool] | None = None,
        save: Callable[[Done], None] | None = None,
    ) -> CorpusMeta:
        """Encodes what is left.

        Args:
            progress: Told how much of the input is encoded.
            save_due: Asked after each batch whether what is done is to be saved.
            save: Given what is done, when it is safe on the disk.

        Raises:
            DataError: the text is unusable, or there is none.
            UnfinishedError: the text is not what it was before, or a process died.
        """
        dtype = storage_dtype(self._storage)
        tally = ReadTally()
        total = self._source.total_bytes
        report = progress or (lambda done, total: None)
        batches = cut_batches(self._source.documents(tally), tally)
        if self._done is not None:
            report(self._done.bytes_read, total)
            self._skip(batches, self._done)
        num_batches = self._done.batches if self._done else 0
        digests = self._done.digests if self._done else {}
        before = self._done.splits if self._done else None
        encoded = encode_batches(batches, self._tokenizer, dtype, self._settings.num_workers)
        with CorpusWriter(self._folder, dtype, self._settings.shard_tokens, before) as writer, closing(encoded):
            for batch, runs in encoded:
                for run in runs:
                    writer.append(run)
                num_batches, digests = num_batches + 1, batch.digests
                report(batch.bytes_read, total)
                if save is not None and save_due is not None and save_due():
                    save(Done(num_batches, batch.bytes_read, digests, writer.save()))
        self._check_learned(digests)
        report(tally.bytes_read, total or tally.bytes_read)
        return self._finish(writer.splits(), tally.replaced)

    def _skip(self, batches: Iterator[Batch], done: Done) -> None:
        """Reads what is encoded already, and checks that it is what it was."""
        digests: Digests = {}
        for _ in range(done.batches):
            batch = next(batches, None)
            digests = batch.digests if batch else {}
        if digests != done.digests:
            raise self._changed()

    def _check_learned(self, digests: Digests) -> None:
        if any(digests.get(split) != found for split, found in self._learned_from.items()):
            raise self._changed()

    def _changed(self) -> UnfinishedError:
        return UnfinishedError(
            f"{', '.join(self._settings.inputs)}: the text is no longer what it was when the work began; remove "
            f"{self._folder.parent} to begin anew"
        )

    def _finish(self, splits: dict[SplitName, SplitMeta], replaced: int) -> CorpusMeta:
        settings, built = self._settings, self._tokenizer
        if not splits["train"].tokens:
            raise DataError(f"{', '.join(settings.inputs)}: no text to train on; every document is empty")
        meta = CorpusMeta(
            format_version=FORMAT_VERSION,
            dtype=self._storage,
            vocab_size=built.vocab_size,
            eos_id=built.eos_id,
            tokenizer=settings.tokenizer,
            tokenizer_fingerprint=built.fingerprint,
            val_fraction=settings.val_fraction,
            val_rule=self._source.val_rule,
            encoding_errors_replaced=replaced,
            inputs=settings.inputs,
            train=splits["train"],
            val=splits["val"],
        )
        (self._folder / TOKENIZER_FILE).write_text(built.to_json(), encoding="utf-8")
        write_text_atomic(self._folder / META_FILE, meta.model_dump_json(indent=2) + "\n")
        return meta
