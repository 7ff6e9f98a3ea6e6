import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from parallax.data.documents import Document, DocumentSource
from parallax.data.hashing import hash_integers
from parallax.data.pieces import cut_pieces
from parallax.data.split_rule import DocumentSplit, ValRule
from parallax.data.text_reader import ReadTally
from parallax.data.write_corpus import Progress
from parallax.errors import DataError
from parallax.runtime.files import STAGING_MARK, explain_disk_full, publish_file

_SHUFFLE_SALT = 0x5AFF1E
_MAX_DOCUMENT_CHARS = 1 << 28
_BUFFER_CHARS = 1 << 28
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """What is taken, and in what order."""

    seed: int = 0
    shuffle_buffer: int = 10_000
    """Documents held to draw the next one from; 1 keeps the order."""
    min_chars: int = 0
    max_chars: int | None = None
    max_bytes: int | None = None
    """Of the text taken, in UTF-8; the first document that does not fit ends the collection."""
    val_fraction: float = 0.0

    def check(self) -> None:
        """Checks what can be known beforehand.

        Raises:
            DataError: an option that takes nothing or means nothing.
        """
        if self.shuffle_buffer < 1:
            raise DataError(f"shuffle_buffer={self.shuffle_buffer} must be at least 1, which keeps the order")
        if self.min_chars < 0 or (self.max_chars is not None and self.max_chars < max(self.min_chars, 1)):
            raise DataError(
                f"min_chars={self.min_chars} and max_chars={self.max_chars} leave no length; give "
                f"0 <= min_chars <= max_chars"
            )
        if not 0 <= self.val_fraction < 1:
            raise DataError(f"val_fraction={self.val_fraction} must be at least 0 and below 1, for example 0.05")


@dataclass
class CollectTally:
    """What became of the documents in one pass."""

    read: int = 0
    too_short: int = 0
    too_long: int = 0
    kept: int = 0
    kept_bytes: int = 0
    is_full: bool = False
    """Whether the size limit ended it."""


def parse_bytes(text: str) -> int:
    """Bytes of `1000`, `100MB` or `2GB` (powers of ten).

    Raises:
        DataError: it is none of these.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?B?)", text.strip().upper())
    unit = found[2] if found else ""
    size = (
        int(float(found[1]) * _UNITS["" if unit == "B" else unit.rstrip("B") + "B" if unit else ""])
        if found
        else 0
    )
    if size < 1:
        raise DataError(f"--max-bytes {text}: expected a size such as 500000, 100MB or 2GB")
    return size


@final
class CollectedSource:
    """The documents of a source that pass the filters, shuffled, up to the size limit.

    The order is a function of the seed and the input: every pass is the same. Each next document is drawn from a
    buffer of `shuffle_buffer` documents (fewer, when they hold more than 256 Mi characters) by a hash of
    (seed, ordinal), and one more is read in its place. `tally` is of the last pass.
    """

    def __init__(self, source: DocumentSource, options: CollectOptions) -> None:
        options.check()
        self._source = source
        self._options = options
        self.tally = CollectTally()

    @property
    def total_bytes(self) -> int:
        """Of the source, or the size limit where there is one and the source's size is not known."""
        return self._source.total_bytes or self._options.max_bytes or 0

    @property
    def val_rule(self) -> ValRule:
        """How the validation split is chosen."""
        return "documents" if self._options.val_fraction else "none"

    @property
    def identity(self) -> dict[str, Any]:
        """The source's, and what is taken of it."""
        return {**self._source.identity, "collected": vars(self._options)}

    def documents(self, tally: ReadTally) -> Iterator[Document]:
        """One pass; held out are those that a hash of their ordinal chooses."""
        hashed = DocumentSplit(self._options.val_fraction)
        for text in self.texts(tally):
            yield Document(hashed.choose(), cut_pieces([text]))

    def texts(self, tally: ReadTally) -> Iterator[str]:
        """The texts of one pass.

        Raises:
            DataError: the input cannot be read, or nothing of it is taken.
        """
        self.tally = CollectTally()
        limit = self._options.max_bytes
        for text in self._shuffled(self._filtered(tally)):
            size = len(text.encode("utf-8"))
            if limit is not None and self.tally.kept_bytes + size > limit:
                self.tally.is_full = True
                break
            self.tally.kept += 1
            self.tally.kept_bytes += size
            yield text
        if not self.tally.kept:
            raise DataError(
                f"none of the {self.tally.read} documents read is taken ({self.tally.too_short} too short, "
                f"{self.tally.too_long} too long); widen --min-chars, --max-chars or --max-bytes"
            )

    def _filtered(self, tally: ReadTally) -> Iterator[str]:
        low, high = self._options.min_chars, self._options.max_chars
        for document in self._source.documents(tally):
            text = self._whole(document, high)
            self.tally.read += 1
            if text is None:
                self.tally.too_long += 1
            elif len(text) < max(low, 1):
                self.tally.too_short += 1
            else:
                yield text

    def _whole(self, document: Document, high: int | None) -> str | None:
        """The text of a document; None when it is longer than `high`."""
        pieces: list[str] = []
        num_chars = 0
        for piece in document.pieces:
            num_chars += len(piece)
            if high is not None and num_chars > high:
                return None
            if num_chars > _MAX_DOCUMENT_CHARS:
                raise DataError(
                    f"document {self.tally.read + 1} has more than {_MAX_DOCUMENT_CHARS:,} characters, too many "
                    f"to hold for shuffling; leave such out with --max-chars, or split the file into documents"
                )
            pieces.append(piece)
        return "".join(pieces)

    def _shuffled(self, texts: Iterator[str]) -> Iterator[str]:
        held: list[str] = []
        held_chars = drawn = 0

        def draw() -> str:
            nonlocal held_chars, drawn
            at = hash_integers(_SHUFFLE_SALT, self._options.seed, drawn) % len(held)
            held[at], held[-1] = held[-1], held[at]
            drawn += 1
            text = held.pop()
            held_chars -= len(text)
            return text

        for text in texts:
            held.append(text)
            held_chars += len(text)
            while held and (len(held) >= self._options.shuffle_buffer or held_chars > _BUFFER_CHARS):
                yield draw()
        while held:
            yield draw()


def write_texts(source: CollectedSource, output: Path, text_field: str, progress: Progress | None = None) -> None:
    """Writes the texts to a new .jsonl file, or to .txt with an empty line between them.

    Raises:
        DataError: unusable input, nothing taken, or `output` exists or cannot be written.
        DiskFullError: the disk ran out; nothing is left of the attempt.
    """
    staging = output.with_name(f"{STAGING_MARK}{output.name}-{os.getpid()}")
    as_json = output.suffix.lower() == ".jsonl"
    tally = ReadTally()
    total = source.total_bytes
    try:
        with explain_disk_full(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            with staging.open("w", encoding="utf-8", newline="\n") as file:
                for text in source.texts(tally):
                    file.write(
                        json.dumps({text_field: text}, ensure_ascii=False) + "\n" if as_json else _block(text)
                    )
                    if progress is not None:
                        progress(tally.bytes_read, total)
            publish_file(staging, output)
    except FileExistsError:
        raise DataError(f"{output} exists; nothing was overwritten: choose another --output") from None
    except OSError as error:
        raise DataError(f"{output} was not made: {error}") from error
    finally:
        staging.unlink(missing_ok=True)


def _block(text: str) -> str:
    return f"{text}\n" if text.endswith("\n") else f"{text}\n\n"
