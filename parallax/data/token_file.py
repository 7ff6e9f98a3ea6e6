import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parallax.data.meta import FORMAT_VERSION, CorpusMeta, ShardMeta, SplitMeta
from parallax.data.token_split import TokenSplit
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import tokenizer_from_json
from parallax.errors import DataError, TokenizerError

TOKEN_FILE_SUFFIX = ".bin"
_ID = np.dtype("<u4")
_CHUNK_BYTES = 1 << 24
_SAMPLE_TOKENS = 1 << 20
_SAMPLE_PARTS = 16


class TokenFileNotes(BaseModel):
    """What lies beside a .bin file: what its ids are, and the tokenizer that made them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    tokens: Annotated[int, Field(gt=0)]
    documents: int
    text_bytes: int
    """Of the text in UTF-8; what bits per byte divides by."""
    sha256: str
    """Of the .bin file."""
    vocab_size: Annotated[int, Field(gt=0)]
    eos_id: int
    encoding_errors_replaced: int
    inputs: tuple[str, ...]
    tokenizer: str
    """The specification that the tokenizer was made from."""
    tokenizer_fingerprint: str
    definition: dict[str, Any]
    """The tokenizer itself, as in the `tokenizer.json` of a corpus."""

    @classmethod
    def of(cls, meta: CorpusMeta, tokenizer: Tokenizer) -> "TokenFileNotes":
        """The notes on the only shard of a corpus."""
        [shard] = meta.train.shards
        return cls(
            tokens=shard.tokens,
            documents=meta.train.documents,
            text_bytes=meta.train.text_bytes,
            sha256=shard.sha256,
            vocab_size=meta.vocab_size,
            eos_id=meta.eos_id,
            encoding_errors_replaced=meta.encoding_errors_replaced,
            inputs=meta.inputs,
            tokenizer=meta.tokenizer,
            tokenizer_fingerprint=meta.tokenizer_fingerprint,
            definition=json.loads(tokenizer.to_json()),
        )


def notes_file(path: Path) -> Path:
    """Where the notes on a .bin file lie: `train.bin.json` beside `train.bin`."""
    return path.with_name(path.name + ".json")


def needs_tokenizer(path: str | Path) -> bool:
    """Whether it is a .bin file without notes, which only somebody who knows its tokenizer can read."""
    path = Path(path)
    return path.name.endswith(TOKEN_FILE_SUFFIX) and path.is_file() and not notes_file(path).exists()


def open_token_file(path: Path, given: Tokenizer | None) -> tuple[CorpusMeta, Tokenizer]:
    """What a file of nothing but little-endian uint32 ids holds, and the tokenizer of those ids.

    Without notes beside it the file is read through once: its checksum is taken, every id is checked, and the
    bytes of its text are measured over 1 Mi tokens, in 16 evenly spaced parts, and taken to be the same elsewhere.

    Args:
        path: The .bin file.
        given: The tokenizer of a file without notes; where there are notes, theirs counts.

    Raises:
        DataError: the size is not a multiple of 4, the file is empty, an id is not in the vocabulary, or the notes
            are damaged or another file's.
        TokenizerError: there are no notes, and no tokenizer was given.
    """
    size = path.stat().st_size
    if size % _ID.itemsize or not size:
        raise DataError(
            f"{path}: {size} bytes, expected a positive multiple of 4 (little-endian uint32 ids); make it with "
            f"parallax data tokenize --input … --output …"
        )
    if not notes_file(path).exists():
        if given is None:
            raise TokenizerError(
                f"{path}: no {notes_file(path).name} beside it says which tokenizer its ids are of; name it: "
                f"data.tokenizer=…"
            )
        return _measure(path, given), given
    notes = _read_notes(path)
    if notes.tokens * _ID.itemsize != size:
        raise DataError(
            f"{path}: {size} bytes, but {notes_file(path).name} tells of {notes.tokens * _ID.itemsize}; they do "
            f"not belong together: tokenize again"
        )
    tokenizer = tokenizer_from_json(json.dumps(notes.definition))
    if tokenizer.fingerprint != notes.tokenizer_fingerprint:
        raise TokenizerError(f"{notes_file(path)}: damaged (another tokenizer than was noted); tokenize again")
    return _meta(path.name, notes), tokenizer


def _read_notes(path: Path) -> TokenFileNotes:
    file = notes_file(path)
    try:
        return TokenFileNotes.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); tokenize again") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"{file}: damaged ({key}: {first['msg']}); tokenize again") from None


def _measure(path: Path, tokenizer: Tokenizer) -> CorpusMeta:
    digest = hashlib.sha256()
    documents = position = 0
    with path.open("rb") as file:
        while raw := file.read(_CHUNK_BYTES):
            digest.update(raw)
            ids = np.frombuffer(raw, _ID)
            _check_ids(path, ids, position, tokenizer)
            documents += int(np.count_nonzero(ids == tokenizer.eos_id))
            position += ids.size
    notes = TokenFileNotes(
        tokens=position,
        documents=documents,
        text_bytes=_measure_text(path, position, tokenizer),
        sha256=digest.hexdigest(),
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        encoding_errors_replaced=0,
        inputs=(str(path),),
        tokenizer="given",
        tokenizer_fingerprint=tokenizer.fingerprint,
        definition={},
    )
    return _meta(path.name, notes)


def _check_ids(path: Path, ids: np.ndarray[Any, np.dtype[Any]], position: int, tokenizer: Tokenizer) -> None:
    if int(ids.max()) >= tokenizer.vocab_size:
        at = int(np.argmax(ids >= tokenizer.vocab_size))
        raise DataError(
            f"{path}: id {int(ids[at])} at position {position + at} is not in the tokenizer's vocabulary of "
            f"{tokenizer.vocab_size}; name the tokenizer that made it (data.tokenizer), and store ids as uint32"
        )


def _measure_text(path: Path, num_tokens: int, tokenizer: Tokenizer) -> int:
    """Bytes of the text, scaled up from evenly spaced parts of a file that has more than 1 Mi tokens."""
    ids = np.memmap(path, dtype=_ID, mode="r")
    split = TokenSplit([ids], vocab_size=tokenizer.vocab_size, num_bytes=0, source=str(path))
    length = min(num_tokens, _SAMPLE_TOKENS) if num_tokens <= _SAMPLE_TOKENS else _SAMPLE_TOKENS // _SAMPLE_PARTS
    count = 1 if num_tokens <= _SAMPLE_TOKENS else _SAMPLE_PARTS
    starts = [(num_tokens - length) * part // max(count - 1, 1) for part in range(count)]
    found = sum(len(tokenizer.decode(split.read(start, length)).encode()) for start in starts)
    return found * num_tokens // (length * count)


def _meta(name: str, notes: TokenFileNotes) -> CorpusMeta:
    shard = ShardMeta(name=name, tokens=notes.tokens, sha256=notes.sha256)
    return CorpusMeta(
        format_version=FORMAT_VERSION,
        dtype="uint32",
        vocab_size=notes.vocab_size,
        eos_id=notes.eos_id,
        tokenizer=notes.tokenizer,
        tokenizer_fingerprint=notes.tokenizer_fingerprint,
        val_fraction=0.0,
        val_rule="none",
        encoding_errors_replaced=notes.encoding_errors_replaced,
        inputs=notes.inputs,
        train=SplitMeta(
            tokens=notes.tokens, documents=notes.documents, text_bytes=notes.text_bytes, shards=(shard,)
        ),
        val=SplitMeta(tokens=0, documents=0, text_bytes=0, shards=()),
    )
