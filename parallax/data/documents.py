import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

from parallax.data.parquet_reader import read_parquet
from parallax.data.pieces import cut_pieces
from parallax.data.split_rule import DocumentSplit, SplitName, ValRule, check_split, tail_start
from parallax.data.text_reader import EncodingErrors, ReadTally, read_jsonl, read_text

MANY_FILES = 50


@dataclass(frozen=True, slots=True)
class Document:
    """A text, or the training or held-out part of one. `pieces` is read once, before the next document."""

    split: SplitName
    pieces: Iterable[str]


class DocumentSource(Protocol):
    """Text that can be passed over several times, divided into the two splits."""

    @property
    def total_bytes(self) -> int:
        """Size of the input, for progress; 0 when it is not known."""
        ...

    @property
    def val_rule(self) -> ValRule:
        """How the validation split is chosen."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this input from another, as far as it can be known without reading it; fit for JSON."""
        ...

    def documents(self, tally: ReadTally) -> Iterator[Document]:
        """One pass in a fixed order; `tally` is kept up to date.

        Raises:
            DataError: the text cannot be read, or a split that was asked for is empty.
        """
        ...


@final
class FileSource:
    """Documents of .txt files (a file is one), .jsonl files (a line is one) and .parquet files (a row is one).

    Held out are whole documents chosen by a hash of their ordinal (`DocumentSplit`) where there are many of
    them: lines, rows, and .txt files when there are at least 50; otherwise the tail of each .txt file
    (`tail_start`), which then counts as a document of its own.
    """

    def __init__(
        self, files: Sequence[Path], *, val_fraction: float, text_field: str, encoding_errors: EncodingErrors
    ) -> None:
        self._files = files
        self._val_fraction = val_fraction
        self._text_field = text_field
        self._errors: EncodingErrors = encoding_errors
        self._text_files = [file for file in files if not _has_rows(file)]
        self._cuts_tails = 0 < len(self._text_files) < MANY_FILES and val_fraction > 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self._files)

    @property
    def val_rule(self) -> ValRule:
        """How the validation split is chosen."""
        if not self._val_fraction:
            return "none"
        if not self._cuts_tails:
            return "documents"
        return "tails" if len(self._text_files) == len(self._files) else "documents and tails"

    @property
    def identity(self) -> dict[str, Any]:
        """Paths, sizes and times of change of the files, and how they are read."""
        stats = [(file, file.stat()) for file in self._files]
        return {
            "files": [[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in stats],
            "val_fraction": self._val_fraction,
            "text_field": self._text_field,
            "encoding_errors": self._errors,
        }

    def documents(self, tally: ReadTally) -> Iterator[Document]:
        """One pass over the files in their order."""
        hashed = DocumentSplit(self._val_fraction)
        found: Counter[SplitName] = Counter()
        for file in self._files:
            for document in self._documents_of(file, hashed, tally):
                found[document.split] += 1
                yield document
        check_split(found, hashed, self._val_fraction)

    def _documents_of(self, file: Path, hashed: DocumentSplit, tally: ReadTally) -> Iterator[Document]:
        if _has_rows(file):
            read = read_parquet if file.name.lower().endswith(".parquet") else read_jsonl
            for text in read(file, self._text_field, self._errors, tally):
                if text:
                    yield Document(hashed.choose(), cut_pieces([text]))
            return
        size = file.stat().st_size
        if not self._cuts_tails:
            if size:
                yield Document(hashed.choose(), self._span(file, 0, size, tally))
            return
        cut = tail_start(file, self._val_fraction) if size else 0
        if cut > 0:
            yield Document("train", self._span(file, 0, cut, tally))
        if cut < size:
            yield Document("val", self._span(file, cut, size, tally))

    def _span(self, file: Path, start: int, stop: int, tally: ReadTally) -> Iterator[str]:
        return cut_pieces(read_text(file, start, stop, self._errors, tally))


@final
class TextSource:
    """Documents that are held in memory; held out are those that a hash of their ordinal chooses."""

    def __init__(self, texts: Sequence[str], *, val_fraction: float) -> None:
        self._texts = texts
        self._val_fraction = val_fraction

    @property
    def total_bytes(self) -> int:
        """Bytes of all texts in UTF-8."""
        return sum(len(text.encode("utf-8")) for text in self._texts)

    @property
    def val_rule(self) -> ValRule:
        """How the validation split is chosen."""
        return "documents" if self._val_fraction else "none"

    @property
    def identity(self) -> dict[str, Any]:
        """Digest of the texts."""
        digest = hashlib.sha256("\xff".join(self._texts).encode()).hexdigest()
        return {"sha256": digest, "val_fraction": self._val_fraction}

    def documents(self, tally: ReadTally) -> Iterator[Document]:
        """One pass over the texts in their order."""
        hashed = DocumentSplit(self._val_fraction)
        found: Counter[SplitName] = Counter()
        for text in self._texts:
            split = hashed.choose()
            found[split] += 1
            yield Document(split, cut_pieces([text]))
            tally.bytes_read += len(text.encode("utf-8"))
        check_split(found, hashed, self._val_fraction)


def _has_rows(file: Path) -> bool:
    return file.name.lower().endswith((".jsonl", ".parquet"))
