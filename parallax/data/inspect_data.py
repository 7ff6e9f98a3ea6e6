from dataclasses import asdict
from pathlib import Path
from typing import Any

from parallax.data.build_tokenizer import build_tokenizer, is_learned
from parallax.data.corpus import Corpus
from parallax.data.corpus_writer import SPLITS
from parallax.data.encode import cut_batches, encode_pieces
from parallax.data.input_files import Inputs, list_inputs
from parallax.data.meta import META_FILE, storage_dtype, storage_type
from parallax.data.open_source import ReadOptions, open_source
from parallax.data.statistics import TokenStatistics
from parallax.data.text_reader import ReadTally
from parallax.data.token_file import TOKEN_FILE_SUFFIX
from parallax.data.tokenizer import Tokenizer
from parallax.data.write_corpus import Progress
from parallax.errors import DataError

_CHUNK_TOKENS = 1 << 22
_MOST_FREQUENT = 12

Report = dict[str, Any]
"""Fit for JSON."""


def is_corpus(path: Path) -> bool:
    """Whether a path is a prepared corpus or a .bin file, rather than text."""
    return (path / META_FILE).is_file() or (path.is_file() and path.name.endswith(TOKEN_FILE_SUFFIX))


def inspect_corpus(path: Path, tokenizer: str | None, verify: bool, progress: Progress | None = None) -> Report:
    """Reads a prepared corpus or .bin file through.

    Args:
        path: Its folder or file.
        tokenizer: Of a .bin file without notes.
        verify: Whether checksums are compared first.
        progress: Told about tokens read, and in all.

    Raises:
        DataError: damaged.
        TokenizerError: the tokenizer is missing or another's.
    """
    corpus = Corpus.open(path, _existing_tokenizer(tokenizer) if tokenizer else None)
    if verify:
        corpus.verify()
    meta = corpus.meta
    statistics = TokenStatistics(corpus.tokenizer())
    total = meta.train.tokens + meta.val.tokens
    done = 0
    for name in SPLITS:
        if not corpus.has_split(name):
            continue
        split = corpus.split(name)
        for start in range(0, split.num_tokens, _CHUNK_TOKENS):
            tokens = split.read(start, min(_CHUNK_TOKENS, split.num_tokens - start))
            statistics.add(tokens)
            done += tokens.size
            if progress is not None:
                progress(done, total)
    return {
        "path": str(path),
        "kind": "token file" if corpus.is_token_file else "corpus",
        "inputs": list(meta.inputs),
        "fingerprint": corpus.fingerprint,
        "verified": verify,
        "storage": meta.dtype,
        "splits": {
            name: {
                "documents": meta.split(name).documents,
                "tokens": meta.split(name).tokens,
                "text_bytes": meta.split(name).text_bytes,
                "shards": len(meta.split(name).shards),
            }
            for name in SPLITS
        },
        "replaced": meta.encoding_errors_replaced,
        **_of_tokens(statistics, meta.tokenizer, meta.train.text_bytes + meta.val.text_bytes),
    }


def inspect_text(inputs: Inputs, tokenizer: str, options: ReadOptions, progress: Progress | None = None) -> Report:
    """Reads text through as `prepare` would, and keeps nothing.

    Raises:
        DataError: unusable input.
        TokenizerError: the tokenizer cannot be had, or would have to be learned.
    """
    built = _existing_tokenizer(tokenizer)
    source = open_source(inputs, 0.0, options)
    dtype = storage_dtype(storage_type(built.vocab_size))
    statistics = TokenStatistics(built)
    tally = ReadTally()
    total = source.total_bytes
    documents = text_bytes = 0
    for batch in cut_batches(source.documents(tally), tally):
        for run in encode_pieces(built, batch.pieces, dtype):
            statistics.add(run.tokens)
            documents += run.documents
            text_bytes += run.text_bytes
        if progress is not None:
            progress(batch.bytes_read, total)
    if not documents:
        raise DataError(f"{', '.join(list_inputs(inputs))}: no text; every document is empty")
    return {
        "path": ", ".join(list_inputs(inputs)),
        "kind": "text",
        "splits": {
            "all": {"documents": documents, "tokens": statistics.num_tokens, "text_bytes": text_bytes, "shards": 0}
        },
        "replaced": tally.replaced,
        **_of_tokens(statistics, tokenizer, text_bytes),
    }


def _existing_tokenizer(spec: str) -> Tokenizer:
    if is_learned(spec):
        raise DataError(
            f"--tokenizer {spec} would be learned; name one that exists: byte, a tokenizer.json, a corpus"
        )
    return build_tokenizer(spec, list)


def _of_tokens(statistics: TokenStatistics, spec: str, text_bytes: int) -> Report:
    lengths = statistics.lengths()
    total = max(statistics.num_tokens, 1)
    return {
        "tokenizer": spec,
        "tokenizer_fingerprint": statistics.tokenizer.fingerprint,
        "vocab_size": statistics.tokenizer.vocab_size,
        "used_ids": statistics.num_used,
        "bytes_per_token": text_bytes / total,
        "unknown": statistics.num_unknown,
        "unknown_share": statistics.num_unknown / total,
        "document_tokens": asdict(lengths) if lengths else None,
        "most_frequent": [asdict(entry) for entry in statistics.most_frequent(_MOST_FREQUENT)],
        "first_documents": statistics.first_documents(),
    }
