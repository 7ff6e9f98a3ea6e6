from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from parallax.data.text_reader import EncodingErrors, ReadTally, decode_utf8
from parallax.errors import DataError

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

_BATCH_ROWS = 1024


def read_parquet(path: Path, field: str, errors: EncodingErrors, tally: ReadTally) -> Iterator[str]:
    """The column `field` of every row, streamed by record batches; about one row group is held at a time.

    Raises:
        DataError: not a parquet file, no such column, a column that holds no text, or a row without text.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    size = path.stat().st_size
    try:
        with ParquetFile(path) as file:
            _check_column(file, field, path)
            rows, num_rows = 0, max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[field]):
                for text in _texts(batch.column(0), f"{path}, row {{}}", field, rows, errors, tally):
                    yield text
                    # The file is read in blocks; what a row took of it is not known.
                    tally.bytes_read += size * (rows + 1) // num_rows - size * rows // num_rows
                    rows += 1
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as parquet: {reason[:200]}; make the file again") from None


def _check_column(file: "ParquetFile", field: str, path: Path) -> None:
    schema = file.schema_arrow
    names = [column.name for column in schema if is_text(column.type)]
    texts = f"the columns with text are {', '.join(map(repr, names[:8]))}" if names else "no column holds text"
    count = schema.names.count(field)
    if count != 1:
        what = "no column" if not count else f"{count} columns are named"
        raise DataError(f"{path}: {what} {field!r} ({texts}); name the one that holds the text: --text-field")
    kind = schema.field(field).type
    if not is_text(kind):
        raise DataError(f"{path}: column {field!r} holds {kind}, expected text ({texts}); name one: --text-field")


def is_text(kind: "pyarrow.DataType") -> bool:
    """Whether a column of that type holds text."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _texts(
    column: "pyarrow.Array", where: str, field: str, first: int, errors: EncodingErrors, tally: ReadTally
) -> Iterator[str]:
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Arrow believes the file that a text is UTF-8; as bytes it comes as it is, to be decoded by our rule.
    for row, raw in enumerate(column.cast(pyarrow.large_binary()).to_pylist(), start=first + 1):
        if raw is None:
            raise DataError(
                f"{where.format(row)}: column {field!r} holds null, expected text; leave such rows out"
            )
        yield decode_utf8(raw, where.format(row), errors, tally)
