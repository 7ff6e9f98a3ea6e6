import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parallax.data.split_rule import SplitName, ValRule
from parallax.errors import DataError

META_FILE = "meta.json"
FORMAT_VERSION = 1

StorageType = Literal["uint16", "uint32"]

_Count = Annotated[int, Field(ge=0)]
_PREPARE_AGAIN = "prepare the corpus again: parallax data prepare --input … --output …"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ShardMeta(_Record):
    """One file of token ids, raw and little-endian."""

    name: str
    """File name inside the corpus folder."""
    tokens: Annotated[int, Field(gt=0)]
    """Number of ids."""
    sha256: str
    """Checksum of the file, in hexadecimal."""


class SplitMeta(_Record):
    """One split; its shards put together are one sequence of tokens."""

    tokens: _Count
    """Number of tokens, EOS included."""
    documents: _Count
    """Number of documents, and so of EOS."""
    text_bytes: _Count
    """Bytes of the text in UTF-8; what bits per byte divides by."""
    shards: tuple[ShardMeta, ...]


class SavedShards(_Record):
    """How far the files of a split were written when it was last made sure of."""

    shards: tuple[ShardMeta, ...]
    """Finished ones."""
    open_tokens: _Count
    """Ids in the one after them."""


class CorpusMeta(_Record):
    """What `meta.json` of a corpus says."""

    format_version: int
    dtype: StorageType
    """Storage of one token id, little-endian."""
    vocab_size: Annotated[int, Field(gt=0)]
    eos_id: _Count
    tokenizer: str
    """The specification that the tokenizer was made from."""
    tokenizer_fingerprint: str
    val_fraction: float
    """Share that was asked to be held out."""
    val_rule: ValRule
    """`documents`: whole documents by a hash of their ordinal; `tails`: the end of each text file."""
    encoding_errors_replaced: _Count
    """U+FFFD put in place of what was not UTF-8."""
    inputs: tuple[str, ...]
    """What the corpus was made from, as it was named."""
    train: SplitMeta
    val: SplitMeta

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Storage type of a shard."""
        return storage_dtype(self.dtype)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the tokens and what they mean; names of inputs and of shards do not enter."""
        essentials = {
            "dtype": self.dtype,
            "vocab_size": self.vocab_size,
            "eos_id": self.eos_id,
            "tokenizer": self.tokenizer_fingerprint,
            "train": [shard.sha256 for shard in self.train.shards],
            "val": [shard.sha256 for shard in self.val.shards],
        }
        return hashlib.sha256(json.dumps(essentials, sort_keys=True).encode()).hexdigest()

    def split(self, name: SplitName) -> SplitMeta:
        """The split of that name."""
        return self.train if name == "train" else self.val

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads `meta.json`.

        Raises:
            DataError: the file is damaged, or of a format that this version does not know.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            version = raw["format_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error}); {_PREPARE_AGAIN}") from None
        if version != FORMAT_VERSION:
            raise DataError(
                f"{path}: format version {version!r}, this parallax reads version {FORMAT_VERSION}; "
                f"{_PREPARE_AGAIN}"
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}: damaged ({key}: {first['msg']}); {_PREPARE_AGAIN}") from None


def storage_type(vocab_size: int) -> StorageType:
    """The smallest type that holds every id of a vocabulary."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def storage_dtype(name: StorageType) -> np.dtype[Any]:
    """The numpy type of a storage type, little-endian on every machine."""
    return np.dtype("<u2" if name == "uint16" else "<u4")
