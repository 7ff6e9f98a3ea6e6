import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parallax.data.build_tokenizer import build_tokenizer, is_learned
from parallax.data.documents import DocumentSource
from parallax.data.encode import BATCH_CHARS
from parallax.data.encode_pool import check_num_workers
from parallax.data.input_files import Inputs, list_inputs
from parallax.data.meta import FORMAT_VERSION, CorpusMeta
from parallax.data.open_source import ReadOptions, open_source
from parallax.data.partial import PartialCorpus, open_partial
from parallax.data.pieces import PIECE_CHARS
from parallax.data.text_digest import Digests
from parallax.data.text_reader import EncodingErrors
from parallax.data.tokenizer import Tokenizer
from parallax.data.write_corpus import SHARD_TOKENS, CorpusEncoder, CorpusSettings, Progress, learn_tokenizer
from parallax.errors import DataError
from parallax.runtime.files import publish_directory

Note = Callable[[str], None]
"""Told in a line what is going on."""


def prepare(
    inputs: Inputs,
    output: str | Path,
    *,
    tokenizer: str = "byte",
    val_fraction: float = 0.05,
    text_field: str = "text",
    encoding_errors: EncodingErrors = "strict",
    dataset_config: str | None = None,
    dataset_split: str = "train",
    dataset_revision: str | None = None,
    shard_tokens: int = SHARD_TOKENS,
    num_workers: int | None = None,
    progress: Progress | None = None,
    learning: Progress | None = None,
    note: Note | None = None,
) -> CorpusMeta:
    """Turns text into a corpus: token shards, `tokenizer.json` and `meta.json` in a new folder.

    A .txt file is one document, a line of a .jsonl file and a row of a .parquet file or data set is one; an EOS
    follows each. Files are read in the order of their paths, in pieces, so memory does not grow with them (a line
    or row is held whole).

    The validation split is, and `val_rule` in `meta.json` says which: whole documents chosen by a hash of their
    ordinal, among lines, rows, the files when there are at least 50 .txt, and built-in corpora; otherwise the tail
    of each .txt file, cut at a line. With `val_fraction` 0 there is none.

    Work in progress is kept in `OUTPUT.partial`. When it was cut off, by `kill -9` too, the same call continues:
    what is done is read again and compared, but not encoded again, and the corpus is the one that an
    uninterrupted call makes.

    Args:
        inputs: Files, folders (searched for .txt, .jsonl and .parquet) and patterns; or alone
            `builtin:python-manual` or `datasets:NAME`, see `DatasetSource`.
        output: Folder to make.
        tokenizer: byte, char, bpe:SIZE, a tokenizer.json or its folder, or the name of a model on the hub.
        val_fraction: Share to hold out, at least 0 and below 1; never ends in an empty split unless 0.
        text_field: Field or column that holds the text, where documents are lines or rows.
        encoding_errors: What to do with bytes that are not UTF-8: refuse the input, or put U+FFFD there.
        dataset_config: Configuration of a data set.
        dataset_split: Split of a data set.
        dataset_revision: Revision of a data set on the hub.
        shard_tokens: Most tokens in one shard file.
        num_workers: Processes that encode; all available cores when None. The corpus does not depend on it.
        progress: Called with (bytes read, bytes in all or 0) while text is being encoded.
        learning: The same while a tokenizer is learned; (0, 0) when all is read.
        note: Told when earlier work is continued.

    Returns:
        What was written to `meta.json`.

    Raises:
        DataError: unusable input, or `output` exists; nothing is overwritten.
        TokenizerError: the tokenizer cannot be had.
        UnfinishedError: `OUTPUT.partial` holds other work, or the input changed, or a process died.
        RunError: another process prepares this corpus.
        DiskFullError: the disk ran out; what is done is kept.
    """
    output = Path(output)
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction={val_fraction} must be at least 0 and below 1, for example 0.05")
    if shard_tokens < 1:
        raise DataError(f"shard_tokens={shard_tokens} must be at least 1")
    refuse_existing(output)
    options = ReadOptions(
        text_field=text_field,
        encoding_errors=encoding_errors,
        dataset_config=dataset_config,
        dataset_split=dataset_split,
        dataset_revision=dataset_revision,
    )
    settings = CorpusSettings(
        tokenizer=tokenizer,
        val_fraction=val_fraction,
        inputs=tuple(list_inputs(inputs)),
        shard_tokens=shard_tokens,
        num_workers=check_num_workers(num_workers),
    )
    source = open_source(inputs, val_fraction, options)
    with finished_corpus(source, output, settings, progress, learning, note) as (partial, meta):
        publish_directory(partial.corpus, output)
    return meta


def prepare_source(
    source: DocumentSource,
    output: Path,
    inputs: Sequence[str],
    tokenizer: str,
    val_fraction: float,
    progress: Progress | None = None,
    learning: Progress | None = None,
    note: Note | None = None,
) -> CorpusMeta:
    """`prepare` of documents that a source has already.

    Raises:
        As `prepare`.
    """
    settings = CorpusSettings(
        tokenizer=tokenizer, val_fraction=val_fraction, inputs=tuple(inputs), num_workers=check_num_workers(None)
    )
    with finished_corpus(source, output, settings, progress, learning, note) as (partial, meta):
        publish_directory(partial.corpus, output)
    return meta


@contextmanager
def finished_corpus(
    source: DocumentSource,
    output: Path,
    settings: CorpusSettings,
    progress: Progress | None = None,
    learning: Progress | None = None,
    note: Note | None = None,
) -> Iterator[tuple[PartialCorpus, CorpusMeta]]:
    """Makes a corpus in `OUTPUT.partial`, or continues; the block gives it its name, then the rest is removed.

    Raises:
        As `prepare`.
    """
    given = None if is_learned(settings.tokenizer) else build_tokenizer(settings.tokenizer, list)
    try:
        with open_partial(output, _plan(source, settings, given)) as partial:
            built, learned_from = _tokenizer(partial, source, settings, given, learning)
            done = partial.done()
            if done is not None and note is not None:
                note(f"continuing {partial.folder}: {done.bytes_read:,} bytes of input are done; comparing them")
            encoder = CorpusEncoder(source, built, settings, partial.corpus, done=done, learned_from=learned_from)
            yield partial, encoder.write(progress, partial.save_due, partial.save)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno == errno.ENOTEMPTY:
            refuse_existing(output)
        raise DataError(f"{output} was not made: {error}") from error


def refuse_existing(output: Path) -> None:
    """Checks that nothing has the name yet.

    Raises:
        DataError: something has; what an end at the last moment left beside it is removed.
    """
    if output.exists():
        partial = PartialCorpus(output)
        if partial.folder.is_dir() and not partial.corpus.exists() and partial.holds_work:
            partial.remove()
        raise DataError(f"{output} exists; nothing was overwritten: choose another --output, or remove it first")


def _plan(source: DocumentSource, settings: CorpusSettings, given: Tokenizer | None) -> dict[str, Any]:
    """What must be the same for work to be continued; neither processes nor progress enter."""
    return {
        "format_version": FORMAT_VERSION,
        "batch_chars": BATCH_CHARS,
        "piece_chars": PIECE_CHARS,
        "source": source.identity,
        "inputs": settings.inputs,
        "tokenizer": settings.tokenizer,
        "tokenizer_fingerprint": given.fingerprint if given is not None else None,
        "val_fraction": settings.val_fraction,
        "shard_tokens": settings.shard_tokens,
        "dtype": settings.dtype,
    }


def _tokenizer(
    partial: PartialCorpus,
    source: DocumentSource,
    settings: CorpusSettings,
    given: Tokenizer | None,
    learning: Progress | None,
) -> tuple[Tokenizer, Digests]:
    if given is not None:
        return given, {}
    kept = partial.learned()
    if kept is None:
        kept = learn_tokenizer(source, settings.tokenizer, learning)
        partial.save_learned(*kept)
    return kept
