from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from parallax.data.build_tokenizer import build_tokenizer
from parallax.data.documents import DocumentSource
from parallax.data.encode import DocumentEncoder, EncodedRun
from parallax.data.meta import FORMAT_VERSION, META_FILE, CorpusMeta, SplitMeta, storage_dtype, storage_type
from parallax.data.shards import ShardWriter
from parallax.data.split_rule import SplitName
from parallax.data.text_reader import ReadTally
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import TOKENIZER_FILE
from parallax.errors import DataError
from parallax.runtime.files import staged_directory

SHARD_TOKENS = 1 << 27

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all) after every batch and at the end."""


def write_corpus(
    source: DocumentSource,
    output: Path,
    *,
    tokenizer: str,
    val_fraction: float,
    inputs: tuple[str, ...],
    shard_tokens: int = SHARD_TOKENS,
    progress: Progress | None = None,
) -> CorpusMeta:
    """Encodes a source into a new corpus folder, which appears complete or not at all.

    A tokenizer that has to be learned reads the source first, BPE the training documents only, char all of
    them, so that no character of the corpus is unknown.

    Args:
        source: The documents.
        output: Folder to make; must not exist.
        tokenizer: Specification, see `build_tokenizer`.
        val_fraction: For the record; the source has the split.
        inputs: For the record.
        shard_tokens: Most tokens in one file.
        progress: Told about the encoding pass.

    Raises:
        DataError: the text is unusable, or there is none.
        TokenizerError: the tokenizer cannot be had.
        OSError: the folder exists, came into being meanwhile, or cannot be written.
    """
    built = build_tokenizer(tokenizer, lambda: _learning_texts(source, tokenizer))
    with staged_directory(output) as folder:
        tally = ReadTally()
        splits = _write_shards(_encode(source, built, tally, progress), folder, built, shard_tokens)
        if not splits["train"].tokens:
            raise DataError(f"{', '.join(inputs)}: no text to train on; every document is empty")
        meta = CorpusMeta(
            format_version=FORMAT_VERSION,
            dtype=storage_type(built.vocab_size),
            vocab_size=built.vocab_size,
            eos_id=built.eos_id,
            tokenizer=tokenizer,
            tokenizer_fingerprint=built.fingerprint,
            val_fraction=val_fraction,
            val_rule=source.val_rule,
            encoding_errors_replaced=tally.replaced,
            inputs=inputs,
            train=splits["train"],
            val=splits["val"],
        )
        (folder / TOKENIZER_FILE).write_text(built.to_json(), encoding="utf-8")
        (folder / META_FILE).write_text(meta.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return meta


def _learning_texts(source: DocumentSource, tokenizer: str) -> Iterator[str]:
    for document in source.documents(ReadTally()):
        if document.split == "train" or tokenizer == "char":
            yield from document.pieces


def _encode(
    source: DocumentSource, tokenizer: Tokenizer, tally: ReadTally, progress: Progress | None
) -> Iterator[EncodedRun]:
    encoder = DocumentEncoder(tokenizer)
    total = source.total_bytes
    for document in source.documents(tally):
        for run in encoder.add(document):
            yield run
            if progress is not None:
                progress(tally.bytes_read, total)
    yield from encoder.flush()
    if progress is not None:
        progress(total, total)


def _write_shards(
    runs: Iterator[EncodedRun], folder: Path, tokenizer: Tokenizer, shard_tokens: int
) -> dict[SplitName, SplitMeta]:
    dtype = storage_dtype(storage_type(tokenizer.vocab_size))
    tokens: Counter[SplitName] = Counter()
    documents: Counter[SplitName] = Counter()
    text_bytes: Counter[SplitName] = Counter()
    names: tuple[SplitName, ...] = ("train", "val")
    with ExitStack() as stack:
        writers = {name: stack.enter_context(ShardWriter(folder, name, dtype, shard_tokens)) for name in names}
        for run in runs:
            writers[run.split].append(run.tokens)
            tokens[run.split] += run.tokens.size
            documents[run.split] += run.documents
            text_bytes[run.split] += run.text_bytes
    return {
        name: SplitMeta(
            tokens=tokens[name],
            documents=documents[name],
            text_bytes=text_bytes[name],
            shards=tuple(writers[name].shards),
        )
        for name in names
    }
