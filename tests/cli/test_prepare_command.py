"""`parallax data prepare`: text to token shards."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_world import PROSE, Parallax

from parallax.data.corpus import Corpus


@pytest.fixture
def texts(tmp_path: Path) -> Iterator[Path]:
    """Two text files and one of JSON lines."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(PROSE)
    (folder / "b.txt").write_text("Another text.\n" * 50)
    (folder / "c.jsonl").write_text("".join(f'{{"text": "line {n}", "body": "other"}}\n' for n in range(60)))
    return folder


def test_files_that_a_shell_pattern_stands_for_are_all_read(
    texts: Path, tmp_path: Path, parallax: Parallax
) -> None:
    """`--input *.txt` reaches the command as one value and loose ones behind it."""
    answer = parallax("data", "prepare", "--input", texts / "a.txt", texts / "b.txt", "--output", tmp_path / "out")
    assert (answer.code, answer.err) == (0, "")
    meta = Corpus.open(tmp_path / "out").meta
    assert meta.train.text_bytes + meta.val.text_bytes == len(PROSE) + 14 * 50
    assert "257 ids" in answer.out
    assert f"next: parallax train configs/tiny.yaml data.path={tmp_path}/out model.vocab_size=257" in answer.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "texts", "--output", "out"],
        ["--input", "texts/*.*", "--output", "out"],
        ["--input", "texts/a.txt", "--input", "texts/b.txt", "--input", "texts/c.jsonl", "--output", "out"],
        ["--output", "out", "--input", "texts/a.txt", "texts/b.txt", "texts/c.jsonl"],
    ],
)
def test_folders_patterns_and_lists_are_the_same_input(
    arguments: list[str], texts: Path, tmp_path: Path, parallax: Parallax, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = parallax("data", "prepare", *arguments, "--json").json
    assert found["train"]["documents"] + found["val"]["documents"] >= 62
    assert found["train"]["text_bytes"] + found["val"]["text_bytes"] > len(PROSE)


def test_json_is_one_object_with_the_meta_data(texts: Path, tmp_path: Path, parallax: Parallax) -> None:
    answer = parallax("data", "prepare", "--input", texts, "--output", tmp_path / "out", "--json")
    assert answer.json["path"] == str(tmp_path / "out")
    assert answer.json["tokenizer"] == "byte"
    assert answer.json["val_fraction"] == 0.05


@pytest.mark.parametrize(("tokenizer", "largest"), [("char", 40), ("bpe:300", 300)])
def test_a_tokenizer_can_be_learned_from_the_text_and_used_again(
    tokenizer: str, largest: int, texts: Path, tmp_path: Path, parallax: Parallax
) -> None:
    def prepared(name: str, spec: object) -> Corpus:
        parallax("data", "prepare", "--input", texts / "a.txt", "--output", tmp_path / name, "--tokenizer", spec)
        return Corpus.open(tmp_path / name)

    first = prepared("first", tokenizer)
    assert 20 < first.meta.vocab_size <= largest
    assert prepared("second", tmp_path / "first").meta.tokenizer_fingerprint == first.meta.tokenizer_fingerprint


def test_the_tokenizer_of_a_checkpoint_can_be_used(texts: Path, tmp_path: Path, parallax: Parallax) -> None:
    checkpoint = "run/checkpoints/step-00000040"
    made = ["data", "prepare", "--input", texts / "a.txt", "--output", tmp_path / "out", "--tokenizer", checkpoint]
    assert parallax(*made).code == 0
    assert parallax("eval", "run", "--data", tmp_path / "out", "--json").code == 0


def test_nothing_is_held_out_when_nothing_is_asked_for(texts: Path, tmp_path: Path, parallax: Parallax) -> None:
    made = ["data", "prepare", "--input", texts / "a.txt", "--output", tmp_path / "out", "--val-fraction", 0]
    assert parallax(*made).code == 0
    assert not Corpus.open(tmp_path / "out").has_split("val")
    answer = parallax("eval", "run", "--data", tmp_path / "out")
    assert answer.code == 2
    assert "has no val split" in answer.err


def test_another_field_of_json_lines_can_be_read(texts: Path, tmp_path: Path, parallax: Parallax) -> None:
    made = ["data", "prepare", "--input", texts / "c.jsonl", "--output", tmp_path / "out", "--text-field", "body"]
    found = parallax(*made, "--json").json
    assert found["train"]["text_bytes"] + found["val"]["text_bytes"] == 60 * len("other")


def test_invalid_utf_8_can_be_replaced(tmp_path: Path, parallax: Parallax) -> None:
    (tmp_path / "latin.txt").write_bytes(("caf\xe9 " * 100).encode("latin-1"))
    made = ["data", "prepare", "--input", tmp_path / "latin.txt", "--output", tmp_path / "out"]
    assert parallax(*made).code == 2
    assert not (tmp_path / "out").exists()
    assert parallax(*made, "--encoding-errors", "replace").code == 0
