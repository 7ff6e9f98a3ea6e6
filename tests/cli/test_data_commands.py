"""`parallax data tokenize`, `collect` and `inspect`, and .bin files in training and evaluation."""

import json
from pathlib import Path

import pytest
from small_world import PROSE, Parallax

from parallax.data.corpus import Corpus

TRAIN = ["train", "tiny.yaml", "train.max_steps=4", "train.eval_every=2"]


@pytest.fixture
def token_files(world: Path, tmp_path: Path, parallax: Parallax) -> Path:
    """A folder with train.bin and val.bin of bytes, and foreign.bin without notes."""
    for name in ("train", "val"):
        made = parallax("data", "tokenize", "--input", world / "prose.txt", "--output", tmp_path / f"{name}.bin")
        assert (made.code, made.err) == (0, "")
    (tmp_path / "foreign.bin").write_bytes((tmp_path / "train.bin").read_bytes())
    return tmp_path


def test_a_run_trains_on_a_token_file_and_is_measured_on_another(token_files: Path, parallax: Parallax) -> None:
    data = [f"data.path={token_files}/train.bin", f"data.val_path={token_files}/val.bin"]
    answer = parallax(*TRAIN, f"run.dir={token_files}/run", *data)
    assert answer.code == 0
    assert "val " in answer.out
    measured = parallax("eval", f"{token_files}/run", "--json").json
    assert measured["tokens"] == len(PROSE)
    assert measured["data"] == f"{token_files}/val.bin"


def test_a_run_on_one_token_file_alone_has_no_validation(token_files: Path, parallax: Parallax) -> None:
    answer = parallax(*TRAIN, f"run.dir={token_files}/run", f"data.path={token_files}/train.bin")
    assert answer.code == 0
    assert "  val " not in answer.out


def test_a_token_file_from_elsewhere_needs_its_tokenizer_named(token_files: Path, parallax: Parallax) -> None:
    path = f"data.path={token_files}/foreign.bin"
    refused = parallax(*TRAIN, f"run.dir={token_files}/run", path)
    assert refused.code == 2
    assert "no foreign.bin.json beside it says which tokenizer its ids are of" in refused.err
    learned = parallax(*TRAIN, f"run.dir={token_files}/run", path, "data.tokenizer=bpe:300")
    assert "data.tokenizer=bpe:300 would be learned" in learned.err
    assert parallax(*TRAIN, f"run.dir={token_files}/run", path, "data.tokenizer=byte").code == 0


def test_the_same_figures_come_from_text_and_from_its_token_file(
    world: Path, token_files: Path, parallax: Parallax
) -> None:
    figures = []
    for data in (world / "prose.txt", token_files / "train.bin", token_files / "foreign.bin"):
        found = parallax("eval", "run", "--data", data, "--json").json
        figures.append((found["loss"], found["bits_per_byte"], found["tokens"]))
    assert figures[0] == figures[1] == figures[2]


def test_collected_text_is_a_file_and_the_next_command_reads_it(
    world: Path, tmp_path: Path, parallax: Parallax
) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in PROSE.splitlines()))
    collect = ["data", "collect", "--input", tmp_path / "t.jsonl", "--max-bytes", "2KB", "--min-chars", 45]
    answer = parallax(*collect, "--output", tmp_path / "some.jsonl")
    assert (answer.code, answer.err) == (0, "")
    assert f"next: parallax data prepare --input {tmp_path}/some.jsonl --output" in answer.out
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n')
    other = ["data", "collect", "--input", tmp_path / "b.jsonl", "--text-field", "body"]
    next_command = parallax(*other, "--output", tmp_path / "b2.jsonl").out
    assert "b2.jsonl --text-field body --output" in next_command
    corpus = parallax(*collect, "--output", tmp_path / "corpus", "--val-fraction", 0.2, "--json").json
    meta = Corpus.open(tmp_path / "corpus").meta
    assert corpus["kept"] == meta.train.documents + meta.val.documents
    assert corpus["kept_bytes"] == meta.train.text_bytes + meta.val.text_bytes <= 2000


@pytest.mark.parametrize("path", ["corpus", "prose.txt", "chars"])
def test_inspect_shows_what_is_there(path: str, parallax: Parallax) -> None:
    answer = parallax("data", "inspect", path)
    assert (answer.code, answer.err) == (0, "")
    assert "most frequent" in answer.out
    assert "Line 0 of the 0th chapter" in answer.out
    assert all(len(line) <= 100 for line in answer.out.splitlines())
    report = parallax("data", "inspect", path, "--json").json
    assert sum(split["text_bytes"] for split in report["splits"].values()) == len(PROSE)


def test_inspect_compares_checksums(token_files: Path, parallax: Parallax) -> None:
    assert "checksums hold" in parallax("data", "inspect", token_files / "train.bin", "--verify").out
    (token_files / "train.bin").write_bytes(bytes((token_files / "train.bin").stat().st_size))
    assert parallax("data", "inspect", token_files / "train.bin", "--verify").code == 2
