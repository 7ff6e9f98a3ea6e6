import difflib
from functools import cached_property
from pathlib import Path
from typing import Self, final

import numpy as np

from parallax.data.input_files import TEXT_SUFFIXES
from parallax.data.meta import META_FILE, CorpusMeta
from parallax.data.partial import partial_folder
from parallax.data.split_rule import SplitName
from parallax.data.token_file import TOKEN_FILE_SUFFIX, open_token_file
from parallax.data.token_split import TokenSplit
from parallax.data.tokenizer import Tokenizer, check_same_tokenizer
from parallax.data.tokenizer_files import TOKENIZER_FILE, load_tokenizer
from parallax.errors import DataError
from parallax.runtime.files import file_sha256

_PREPARE = "parallax data prepare --input … --output …"


@final
class Corpus:
    """Token shards and their tokenizer: a folder that `prepare` made, or one .bin file of ids. See `open`."""

    def __init__(self, path: Path, meta: CorpusMeta, tokenizer: Tokenizer | None = None) -> None:
        self.path = path
        self.meta = meta
        self.is_token_file = tokenizer is not None
        """Whether it is a .bin file: all of it is one split, `train`."""
        self._tokenizer = tokenizer
        self._folder = path.parent if self.is_token_file else path

    @classmethod
    def open(cls, path: str | Path, tokenizer: Tokenizer | None = None) -> Self:
        """Reads `meta.json` and checks that every shard is there with its size; contents are left to `verify`.

        Args:
            path: A folder that `prepare` made, or a .bin file of ids (see `open_token_file`).
            tokenizer: That of a .bin file which has no notes beside it.

        Raises:
            DataError: no corpus at `path`, or one that is damaged or of an unknown format.
            TokenizerError: a .bin file without notes, and no tokenizer given.
        """
        path = Path(path)
        if path.is_file():
            if path.name.endswith(TOKEN_FILE_SUFFIX) and not (path.parent / META_FILE).exists():
                return cls(path, *open_token_file(path, tokenizer))
            text = path.name.lower().endswith(TEXT_SUFFIXES)
            way_out = f"parallax data prepare --input {path} --output …" if text else "give its folder"
            raise DataError(f"{path}: a file, expected the folder of a prepared corpus; {way_out}")
        if not path.is_dir():
            if partial_folder(path).is_dir():
                raise DataError(f"{path}: not finished; run the command that makes it again, and it continues")
            raise DataError(f"{path}: no such corpus; {_nearest(path)}make one: {_PREPARE}")
        if not (path / META_FILE).is_file():
            raise DataError(f"{path}: not a prepared corpus (it has no {META_FILE}); make one: {_PREPARE}")
        corpus = cls(path, CorpusMeta.read(path / META_FILE))
        corpus._check_sizes()
        return corpus

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens and what they mean; the same wherever the folder lies."""
        return self.meta.fingerprint

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the corpus was made with.

        Raises:
            TokenizerError: its file is missing, damaged, or another's.
        """
        if self._tokenizer is not None:
            return self._tokenizer
        tokenizer = load_tokenizer(self.path / TOKENIZER_FILE)
        check_same_tokenizer(tokenizer, self.meta.tokenizer_fingerprint, f"the corpus {self.path}")
        return tokenizer

    def has_split(self, name: SplitName) -> bool:
        """Whether the split has tokens; there is none for validation when nothing was held out."""
        return self.meta.split(name).tokens > 0

    def split(self, name: SplitName) -> TokenSplit:
        """The tokens of a split, memory-mapped.

        Raises:
            DataError: the corpus was prepared without that split.
        """
        split = self.meta.split(name)
        if not self.has_split(name):
            if self.is_token_file:
                raise DataError(f"{self.path}: one file is one split, it has no {name} split; set data.val_path")
            raise DataError(
                f"{self.path}: has no {name} split, it was prepared with --val-fraction "
                f"{self.meta.val_fraction}; prepare it again with a larger one"
            )
        files = [self._folder / shard.name for shard in split.shards]
        return TokenSplit(
            [np.memmap(file, dtype=self.meta.numpy_dtype, mode="r") for file in files],
            vocab_size=self.meta.vocab_size,
            num_bytes=split.text_bytes,
            source=str(self.path) if self.is_token_file else f"{self.path} ({name})",
        )

    def measured(self, name: SplitName = "val") -> TokenSplit:
        """The split to measure a model on: the one of that name, or all of a .bin file.

        Raises:
            DataError: the corpus was prepared without that split.
        """
        return self.split("train" if self.is_token_file else name)

    def verify(self) -> None:
        """Reads everything and compares it with the checksums.

        Raises:
            DataError: a shard is not what was written.
            TokenizerError: the tokenizer is not.
        """
        for split in (self.meta.train, self.meta.val):
            for shard in split.shards:
                if file_sha256(self._folder / shard.name) != shard.sha256:
                    raise self._damaged(shard.name, "its checksum differs")
        self.tokenizer()

    def _check_sizes(self) -> None:
        for split in (self.meta.train, self.meta.val):
            for shard in split.shards:
                file = self._folder / shard.name
                if not file.is_file():
                    raise self._damaged(shard.name, "it is missing")
                expected, found = shard.tokens * self.meta.numpy_dtype.itemsize, file.stat().st_size
                if found != expected:
                    raise self._damaged(shard.name, f"it has {found} bytes instead of {expected}")

    def _damaged(self, name: str, what: str) -> DataError:
        return DataError(f"{self._folder / name}: damaged shard, {what}; prepare the corpus again: {_PREPARE}")


def check_vocabulary(meta: CorpusMeta, vocab_size: int) -> None:
    """Checks that a model with `vocab_size` ids can read the corpus.

    Raises:
        DataError: the corpus may hold larger ids.
    """
    if meta.vocab_size > vocab_size:
        raise DataError(
            f"the corpus has token ids up to {meta.vocab_size - 1} (tokenizer {meta.tokenizer!r}), the model only "
            f"knows ids below model.vocab_size={vocab_size}; set model.vocab_size={meta.vocab_size}"
        )


def _nearest(path: Path) -> str:
    parent = path.parent
    corpora = (
        [entry.name for entry in parent.iterdir() if (entry / META_FILE).is_file()] if parent.is_dir() else []
    )
    near = difflib.get_close_matches(path.name, corpora, 1)
    return f"did you mean {parent / near[0]}? Or " if near else ""
