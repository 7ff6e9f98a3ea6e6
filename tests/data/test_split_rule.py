import json
from collections import Counter
from pathlib import Path

import pytest

from parallax.data.documents import FileSource, TextSource
from parallax.data.split_rule import DocumentSplit, tail_start
from parallax.data.text_reader import ReadTally
from parallax.errors import DataError


def source_of(folder: Path, val_fraction: float) -> FileSource:
    files = sorted(folder.iterdir())
    return FileSource(files, val_fraction=val_fraction, text_field="text", encoding_errors="strict")


def texts_of(source: FileSource | TextSource) -> list[tuple[str, str]]:
    return [(document.split, "".join(document.pieces)) for document in source.documents(ReadTally())]


def write_jsonl(folder: Path, count: int) -> None:
    lines = [json.dumps({"text": f"document {n}"}) for n in range(count)]
    (folder / "a.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize("val_fraction", [0.02, 0.3, 0.9])
def test_the_share_of_documents_held_out_is_the_one_asked_for_everywhere_in_the_input(val_fraction: float):
    chooser = DocumentSplit(val_fraction)
    choices = [chooser.choose() for _ in range(8_000)]
    for start in range(0, 8_000, 2_000):
        share = Counter(choices[start : start + 2_000])["val"] / 2_000
        assert share == pytest.approx(val_fraction, abs=5 * (val_fraction * (1 - val_fraction) / 2_000) ** 0.5)


def test_a_few_text_files_give_their_tails_as_documents_of_their_own(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} line {n:02d}\n" for n in range(20)))
    source = source_of(tmp_path, 0.1)
    assert source.val_rule == "tails"
    assert [(split, text[:9], text[-10:]) for split, text in texts_of(source)] == [
        ("train", "a line 00", "a line 18\n"),
        ("val", "a line 19", "a line 19\n"),
        ("train", "b line 00", "b line 18\n"),
        ("val", "b line 19", "b line 19\n"),
    ]


def test_fifty_text_files_are_held_out_whole(tmp_path: Path):
    for n in range(49):
        (tmp_path / f"{n:02d}.txt").write_text(f"first line {n}\nsecond line\n")
    assert source_of(tmp_path, 0.2).val_rule == "tails"
    (tmp_path / "49.txt").write_text("first line 49\nsecond line\n")
    source = source_of(tmp_path, 0.2)
    assert source.val_rule == "documents"
    found = texts_of(source)
    assert {text for _, text in found} == {f"first line {n}\nsecond line\n" for n in range(50)}
    assert 2 <= Counter(split for split, _ in found)["val"] <= 20


def test_lines_of_jsonl_are_held_out_whole_and_beside_them_text_files_by_their_tails(tmp_path: Path):
    write_jsonl(tmp_path, 100)
    assert source_of(tmp_path, 0.2).val_rule == "documents"
    (tmp_path / "b.txt").write_text("one\ntwo\nthree\n")
    source = source_of(tmp_path, 0.2)
    assert source.val_rule == "documents and tails"
    found = texts_of(source)
    assert [text for _, text in found[:100]] == [f"document {n}" for n in range(100)]
    assert 5 <= Counter(split for split, _ in found[:100])["val"] <= 40
    assert found[100:] == [("train", "one\ntwo\n"), ("val", "three\n")]


def test_every_pass_over_a_source_is_the_same(tmp_path: Path):
    write_jsonl(tmp_path, 100)
    source = source_of(tmp_path, 0.2)
    assert texts_of(source) == texts_of(source)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_without_a_fraction_everything_is_for_training(tmp_path: Path, name: str):
    (tmp_path / name).write_text('{"text": "one"}\n{"text": "two"}\n')
    source = source_of(tmp_path, 0)
    assert source.val_rule == "none"
    assert {split for split, _ in texts_of(source)} == {"train"}


@pytest.mark.parametrize(
    ("text", "val_fraction", "held_out"),
    [
        ("a\nb\nc\nd\n", 0.25, "d\n"),
        ("a\nb\nc\nd\n", 0.01, "d\n"),
        ("a\nbbbbbbbbbb", 0.1, "bbbbbbbbbb"),
        ("one long line of words", 0.3, " words"),
        ("ééééé", 0.25, "é"),
        ("aaaa\n\n\n\n", 0.5, "\n\n\n"),
        ("x", 0.5, ""),
    ],
    ids=[
        "after a newline",
        "the last line",
        "the last line before",
        "a space",
        "a character",
        "blank lines",
        "none",
    ],
)
def test_the_tail_starts_at_a_line_or_else_a_word_or_else_a_character(
    tmp_path: Path, text: str, val_fraction: float, held_out: str
):
    file = tmp_path / "a.txt"
    file.write_text(text)
    assert file.read_bytes()[tail_start(file, val_fraction) :].decode() == held_out


def test_an_empty_validation_split_is_refused_with_a_fraction_that_works(tmp_path: Path):
    write_jsonl(tmp_path, 4)
    with pytest.raises(
        DataError, match=r"none of the 4 documents .*--val-fraction (0\.\d+) holds one out"
    ) as caught:
        texts_of(source_of(tmp_path, 0.001))
    enough = float(str(caught.value).partition("--val-fraction ")[2].split()[0])
    assert Counter(split for split, _ in texts_of(source_of(tmp_path, enough)))["val"] == 1


@pytest.mark.parametrize("content", ['{"text": "only one"}\n', '{"text": "only one"}\n{"text": ""}\n'])
def test_one_document_cannot_be_divided(tmp_path: Path, content: str):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match="too short to hold out"):
        texts_of(source_of(tmp_path, 0.05))


def test_a_text_of_one_character_cannot_be_divided(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"too short to hold out val_fraction=0\.05"):
        texts_of(source_of(tmp_path, 0.05))


def test_a_fraction_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path):
    write_jsonl(tmp_path, 2)
    with pytest.raises(DataError, match="holds out all 2 documents"):
        texts_of(source_of(tmp_path, 0.9999999))


def test_documents_without_text_are_no_text(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n\n')
    with pytest.raises(DataError, match="holds no text"):
        texts_of(source_of(tmp_path, 0.05))


def test_texts_in_memory_are_held_out_whole():
    source = TextSource([f"text {n}" for n in range(100)], val_fraction=0.2)
    found = texts_of(source)
    assert [text for _, text in found] == [f"text {n}" for n in range(100)]
    assert 5 <= Counter(split for split, _ in found)["val"] <= 40
