import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parallax.data import text_reader
from parallax.data.text_reader import ReadTally, read_jsonl, read_text
from parallax.errors import DataError


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that characters and bad bytes lie across the borders of what is read at a time."""
    monkeypatch.setattr(text_reader, "_CHUNK_BYTES", 5)


def read_whole(path: Path, errors: str = "strict") -> tuple[str, ReadTally]:
    tally = ReadTally()
    return "".join(read_text(path, 0, path.stat().st_size, errors, tally)), tally


@given(text=st.text())
@example(text="\ufeffmarked")
@example(text="not \ufeff first")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_back_whatever_the_borders_of_chunks(tmp_path: Path, text: str):
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode())
    assert read_whole(file)[0] == text.removeprefix("\ufeff")


@given(raw=st.binary())
@example(raw=b"\xff \xef\xbf\xbd \xef\xbf")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_replacing_gives_what_python_gives_and_counts_only_what_was_put_in(tmp_path: Path, raw: bytes):
    file = tmp_path / "a.txt"
    file.write_bytes(raw)
    text, tally = read_whole(file, "replace")
    expected = raw.decode("utf-8", "replace")
    assert text == expected.removeprefix("\ufeff")
    assert tally.replaced == expected.count("\ufffd") - raw.count("\ufffd".encode())
    assert tally.bytes_read == len(raw)


@pytest.mark.parametrize(
    ("raw", "line", "offset", "byte"),
    [
        (b"ok\nfine\nbad \xff here\n", 3, 12, "0xff"),
        ("naïve é\n".encode() + b"abc\xe9t\xe9", 2, 13, "0xe9"),
        (b"0123456789012345678901234\xc3", 1, 25, "0xc3"),
        (b"\xff\xfea\x00", 1, 0, "0xff"),
    ],
)
def test_bytes_that_are_not_utf8_are_refused_with_line_offset_and_way_out(
    tmp_path: Path, raw: bytes, line: int, offset: int, byte: str
):
    file = tmp_path / "a.txt"
    file.write_bytes(raw)
    expected = rf"a\.txt, line {line}, byte offset {offset}: invalid UTF-8 \({byte}.*--encoding-errors replace"
    with pytest.raises(DataError, match=expected):
        read_whole(file)


def test_a_part_of_a_file_is_read_from_byte_to_byte(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"first\nsecond\nthird\n")
    assert "".join(read_text(file, 6, 13, "strict", ReadTally())) == "second\n"


def test_newlines_are_kept_as_they_are(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\r\nb\rc\n")
    assert read_whole(file)[0] == "a\r\nb\rc\n"


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read: No such file"):
        list(read_text(tmp_path / "gone.txt", 0, 1, "strict", ReadTally()))


def jsonl(folder: Path, *lines: str | bytes) -> Path:
    file = folder / "a.jsonl"
    file.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return file


def test_every_line_gives_its_field_and_blank_lines_give_nothing(tmp_path: Path):
    file = jsonl(
        tmp_path, b"\xef\xbb\xbf" + json.dumps({"text": "a\nb", "n": 1}).encode(), "", '{"text": "é"}', "  "
    )
    tally = ReadTally()
    assert list(read_jsonl(file, "text", "strict", tally)) == ["a\nb", "é"]
    assert tally == ReadTally(bytes_read=file.stat().st_size, replaced=0)


def test_another_field_can_be_named(tmp_path: Path):
    file = jsonl(tmp_path, '{"text": "no", "story": "yes"}')
    assert list(read_jsonl(file, "story", "strict", ReadTally())) == ["yes"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "cut of', "not valid JSON .*every line must be one JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('["text"]', r"expected a JSON object such as \{\"text\": \"…\"\}, found '\[\"text\"\]'"),
        ('{"title": 1, "body": 2}', r"no field 'text' \(it has 'title', 'body'\).*--text-field"),
        ('{"text": null}', "field 'text' holds null, expected text"),
        ('{"text": ["a"]}', r"field 'text' holds \[\"a\"\], expected text"),
        (b'{"text": "\xff"}', r"byte offset 28: invalid UTF-8 \(0xff.*--encoding-errors replace"),
        (r'{"text": "a\ud83d"}', r"character 1 is the lone surrogate '\\ud83d'.*--encoding-errors replace"),
    ],
)
def test_a_bad_line_is_refused_with_its_file_and_number(tmp_path: Path, line: str | bytes, complaint: str):
    file = jsonl(tmp_path, '{"text": "good"}', "", line)
    with pytest.raises(DataError, match=rf"a\.jsonl, line 3[:,] .*{complaint}") as caught:
        list(read_jsonl(file, "text", "strict", ReadTally()))
    assert "\n" not in str(caught.value)


def test_replacing_mends_bad_bytes_and_lone_surrogates_and_counts_them(tmp_path: Path):
    file = jsonl(tmp_path, b'{"text": "a\xffb"}', '{"text": "\ufffd"}', r'{"text": "\ud83d\ude00 \ud83d \ufffd"}')
    tally = ReadTally()
    assert list(read_jsonl(file, "text", "replace", tally)) == ["a\ufffdb", "\ufffd", "\U0001f600 \ufffd \ufffd"]
    assert tally.replaced == 2
