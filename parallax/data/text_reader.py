import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from parallax.errors import DataError

EncodingErrors = Literal["strict", "replace"]

_CHUNK_BYTES = 1 << 20
_REPLACEMENT = "\ufffd"
_REPLACEMENT_UTF8 = _REPLACEMENT.encode()


@dataclass
class ReadTally:
    """What one pass over the input has met so far."""

    bytes_read: int = 0
    replaced: int = 0
    """U+FFFD put in place of something that is not UTF-8."""


def read_text(path: Path, start: int, stop: int, errors: EncodingErrors, tally: ReadTally) -> Iterator[str]:
    """Decodes the bytes [start, stop) of a UTF-8 file, about 1 MiB at a time; a byte-order mark is left out.

    Raises:
        DataError: with `errors="strict"`, a byte is not UTF-8 (file, line, offset); the file cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    position = start
    with open_binary(path) as file:
        file.seek(start)
        while True:
            raw = file.read(min(_CHUNK_BYTES, stop - position))
            pending = decoder.getstate()[0]
            try:
                text = decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                offset = position - len(pending) + error.start
                raise _invalid_utf8(path, _line_of(path, offset), offset, error) from None
            if errors == "replace":
                seen = (pending + raw).removesuffix(decoder.getstate()[0])
                tally.replaced += text.count(_REPLACEMENT) - seen.count(_REPLACEMENT_UTF8)
            if position == 0:
                text = text.removeprefix("\ufeff")
            position += len(raw)
            tally.bytes_read += len(raw)
            if text:
                yield text
            if not raw:
                return


def read_jsonl(path: Path, field: str, errors: EncodingErrors, tally: ReadTally) -> Iterator[str]:
    """The field `field` of every line's JSON object, blank lines left out. One line is held at a time.

    Raises:
        DataError: a line is not UTF-8, not a JSON object, or has no text in that field (file and line).
    """
    offset = 0
    with open_binary(path) as file:
        for number, raw in enumerate(file, start=1):
            bare = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            try:
                line = bare.decode("utf-8", errors)
            except UnicodeDecodeError as error:
                at = offset + len(raw) - len(bare) + error.start
                raise _invalid_utf8(path, number, at, error) from None
            tally.replaced += line.count(_REPLACEMENT) - bare.count(_REPLACEMENT_UTF8)
            size = len(raw)
            text = _field_text(line, field, f"{path}, line {number}", errors, tally) if line.strip() else None
            del raw, bare, line  # of 100 MB, perhaps, and not needed while the text is worked on
            if text is not None:
                yield text
            offset += size
            tally.bytes_read += size


def open_binary(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Raises:
        DataError: the operating system refuses.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _field_text(line: str, field: str, where: str, errors: EncodingErrors, tally: ReadTally) -> str:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}); every line must be one JSON object") from None
    if not isinstance(record, dict):
        raise DataError(f'{where}: expected a JSON object such as {{"{field}": "…"}}, found {line.strip()[:40]!r}')
    if field not in record:
        have = ", ".join(map(repr, list(record)[:8])) or "no fields"
        raise DataError(
            f"{where}: no field {field!r} (it has {have}); name the one that holds the text: --text-field"
        )
    text = record[field]
    if not isinstance(text, str):
        raise DataError(f"{where}: field {field!r} holds {json.dumps(text)[:40]}, expected text")
    return without_surrogates(text, where, errors, tally)


def decode_utf8(raw: bytes, where: str, errors: EncodingErrors, tally: ReadTally) -> str:
    """Text of bytes that came out of a container.

    Raises:
        DataError: with `errors="strict"`, a byte is not UTF-8.
    """
    try:
        text = raw.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}, byte {error.start} of the text: invalid UTF-8 (0x{raw[error.start]:02x}, {error.reason}); "
            f"mend it, or pass --encoding-errors replace"
        ) from None
    tally.replaced += text.count(_REPLACEMENT) - raw.count(_REPLACEMENT_UTF8)
    return text


def without_surrogates(text: str, where: str, errors: EncodingErrors, tally: ReadTally) -> str:
    """JSON escapes can spell half of a surrogate pair, which no UTF-8 file can hold."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError as error:
        if errors == "strict":
            raise DataError(
                f"{where}: character {error.start} is the lone surrogate {text[error.start]!r}, which is not "
                f"valid Unicode; mend the line, or pass --encoding-errors replace"
            ) from None
    clean = "".join(_REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in text)
    tally.replaced += clean.count(_REPLACEMENT) - text.count(_REPLACEMENT)
    return clean


def _invalid_utf8(path: Path, line: int, offset: int, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{path}, line {line}, byte offset {offset}: invalid UTF-8 "
        f"(0x{error.object[error.start]:02x}, {error.reason}); "
        f"convert the file to UTF-8, or pass --encoding-errors replace"
    )


def _line_of(path: Path, offset: int) -> int:
    """The number, from 1, of the line that holds the byte at `offset`."""
    line, left = 1, offset
    with open_binary(path) as file:
        while left > 0 and (raw := file.read(min(_CHUNK_BYTES, left))):
            line += raw.count(b"\n")
            left -= len(raw)
    return line
