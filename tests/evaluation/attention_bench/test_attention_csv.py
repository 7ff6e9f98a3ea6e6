"""Rows come back from the disk as they were, and what a crash left of a line does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.attention_bench.csv_file import CsvFile
from evaluation.attention_bench.rows import Row, rows_of
from parallax.errors import ConfigError

WARM = Row(
    task="decode",
    device="cpu, 2 threads",
    dtype="bf16",
    layout="heads",
    warmup=0,
    iters=2,
    trials=3,
    batch=1,
    heads=8,
    key_heads=2,
    length=512,
    width=64,
    contender="chunked",
    family="plla",
    cache="warm",
    outcome="measured",
    timer="wall clock",
    first_seconds=0.1 + 0.2,
    q50_seconds=1e-3,
    samples=6,
    error=float("nan"),
    floor_seconds=5e-4,
)
COLD = replace(WARM, cache="cold", error=1e-7)
SKIPPED = replace(
    WARM, cache="", outcome="skipped", reason='needs "9" GiB, more', window=16, q50_seconds=None, error=None
)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    CsvFile(path, resume=False).append([COLD])
    CsvFile(path, resume=True).append([SKIPPED])
    assert CsvFile(path, resume=True).rows == [COLD, SKIPPED]
    assert path.read_text().count("task,device") == 1


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    CsvFile(path, resume=False).append([COLD, SKIPPED])
    path.write_bytes(path.read_bytes()[:-10])
    again = CsvFile(path, resume=True)
    assert again.rows == [COLD]
    again.append([SKIPPED])
    assert CsvFile(path, resume=True).rows == [COLD, SKIPPED]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "\n", None])
def test_another_table_is_left_alone(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "rows.csv"
    if content is None:
        CsvFile(path, resume=False)
        content = path.read_text() + "x," * 29 + "x\n"
    path.write_text(content)
    with pytest.raises(ConfigError, match="no table of this benchmark"):
        CsvFile(path, resume=True)
    assert path.read_text() == content


def test_a_file_is_gone_on_with_only_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    CsvFile(path, resume=False)
    with pytest.raises(ConfigError, match="is there already; --resume"):
        CsvFile(path, resume=False)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        CsvFile(tmp_path, resume=True)


def test_what_was_said_last_counts() -> None:
    failed = replace(SKIPPED, outcome="failed", window=None)
    slower = replace(COLD, q50_seconds=2e-3)
    elsewhere = [replace(WARM, device="cpu, 1 thread"), replace(WARM, length=1024)]
    rows = [failed, WARM, COLD, slower, *elsewhere]
    assert rows_of(rows, WARM.setting, WARM.shape) == [WARM, slower]
    assert rows_of([*rows, failed], WARM.setting, WARM.shape) == [failed]


def test_the_distance_to_the_floor() -> None:
    assert WARM.over_floor == 2.0
    assert SKIPPED.over_floor is None
