import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.errors import DataError

TEXTS = [f"Story {n}: once upon a time, {'é' * (n % 5)}." for n in range(3000)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three row groups of 1,000 texts beside a column of numbers."""
    columns = {"n": list(range(3000)), "text": TEXTS, "label": ["a"] * 3000}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet", row_group_size=1000)
    return tmp_path / "t.parquet"


def documents_of(folder: Path) -> list[str]:
    split = Corpus.open(folder).split("train")
    tokens = split.read(0, split.num_tokens)
    parts = np.split(tokens, np.flatnonzero(tokens == 256) + 1)
    return [part[:-1].astype(np.uint8).tobytes().decode() for part in parts if part.size]


def test_every_row_is_a_document_in_the_order_of_the_file(table: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    prepare(table, tmp_path / "out", val_fraction=0, progress=lambda *at: seen.append(at))
    assert documents_of(tmp_path / "out") == TEXTS
    assert seen[-1] == (table.stat().st_size, table.stat().st_size)


def test_rows_are_held_out_as_lines_of_json_are(table: Path, tmp_path: Path):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    rows = prepare(table, tmp_path / "rows")
    lines = prepare(tmp_path / "t.jsonl", tmp_path / "lines")
    assert rows.fingerprint == lines.fingerprint


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())])
def test_text_may_be_stored_in_other_ways(tmp_path: Path, kind: pyarrow.DataType):
    column = pyarrow.array(["one", "two", "one"]).cast(kind)
    parquet.write_table(pyarrow.table({"body": column}), tmp_path / "t.parquet")
    prepare(tmp_path / "t.parquet", tmp_path / "out", val_fraction=0, text_field="body")
    assert documents_of(tmp_path / "out") == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("body", r"no column 'body' \(the columns with text are 'text', 'label'\); .*--text-field"),
        ("n", "column 'n' holds int64, expected text"),
    ],
)
def test_a_column_that_is_missing_or_holds_no_text_is_refused(table: Path, tmp_path: Path, field: str, said: str):
    with pytest.raises(DataError, match=said):
        prepare(table, tmp_path / "out", text_field=field)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_row_without_text_is_refused_with_its_number(tmp_path: Path):
    parquet.write_table(pyarrow.table({"text": ["one", None, "three"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet, row 2: column 'text' holds null"):
        prepare(tmp_path / "t.parquet", tmp_path / "out", val_fraction=0)


@pytest.mark.parametrize("raw", [b"no parquet at all, but long enough", b"PAR1"])
def test_what_is_no_parquet_is_one_line(tmp_path: Path, raw: bytes):
    (tmp_path / "t.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as parquet") as caught:
        prepare(tmp_path / "t.parquet", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_damaged_page_is_one_line(table: Path, tmp_path: Path):
    raw = bytearray(table.read_bytes())
    raw[4 : len(raw) // 2] = bytes(len(raw) // 2 - 4)
    table.write_bytes(raw)
    with pytest.raises(DataError, match=r"t\.parquet.*(cannot be read as parquet|invalid UTF-8)"):
        prepare(table, tmp_path / "out", val_fraction=0)


def test_bytes_that_are_not_utf8_stop_it_or_are_replaced_and_counted(tmp_path: Path):
    wrong = pyarrow.array([b"good", b"b\xffd"]).cast(pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": wrong}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet, row 2, byte 1 of the text: invalid UTF-8 \(0xff"):
        prepare(tmp_path / "t.parquet", tmp_path / "out", val_fraction=0)
    meta = prepare(tmp_path / "t.parquet", tmp_path / "out", val_fraction=0, encoding_errors="replace")
    assert meta.encoding_errors_replaced == 1
    assert documents_of(tmp_path / "out") == ["good", "b\ufffdd"]
