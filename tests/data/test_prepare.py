import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parallax.data import encode, pieces
from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.errors import DataError, DiskFullError, TokenizerError


def tokens_of(corpus: Corpus, name: str) -> np.ndarray:
    split = corpus.split(name)
    return split.read(0, split.num_tokens)


def text_of(corpus: Corpus, name: str) -> bytes:
    """The bytes of a split, with a zero for each EOS (256)."""
    return tokens_of(corpus, name).astype(np.uint8).tobytes()


def test_bytes_of_the_text_and_an_eos_after_each_document_are_what_is_written(tmp_path: Path):
    (tmp_path / "a.txt").write_text("first\nFIRST\n")
    (tmp_path / "b.txt").write_text("é\nsecond\n")
    prepare(tmp_path, tmp_path / "out", val_fraction=0.2)
    corpus = Corpus.open(tmp_path / "out")
    assert text_of(corpus, "train").split(b"\0") == [b"first\n", "é\n".encode(), b""]
    assert np.flatnonzero(tokens_of(corpus, "train") == 256).tolist() == [6, 10]
    assert text_of(corpus, "val").split(b"\0") == [b"FIRST\n", b"second\n", b""]
    assert (corpus.meta.train.documents, corpus.meta.train.text_bytes, corpus.meta.train.tokens) == (2, 9, 11)
    assert (corpus.meta.val.documents, corpus.meta.val.text_bytes, corpus.meta.val.tokens) == (2, 13, 15)


def test_the_files_on_disk_are_what_meta_says(tmp_path: Path, prose: str):
    (tmp_path / "a.txt").write_text(prose)
    returned = prepare(str(tmp_path / "a.txt"), tmp_path / "out", shard_tokens=5000)
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta == returned.model_dump(mode="json")
    shards = meta["train"]["shards"]
    assert [shard["name"] for shard in shards] == [f"train-{n:05d}.bin" for n in range(len(shards))]
    assert {shard["tokens"] for shard in shards[:-1]} == {5000}
    for shard in shards:
        raw = (tmp_path / "out" / shard["name"]).read_bytes()
        assert len(raw) == 2 * shard["tokens"]
        assert hashlib.sha256(raw).hexdigest() == shard["sha256"]
    together = b"".join((tmp_path / "out" / shard["name"]).read_bytes() for shard in shards)
    text = np.frombuffer(together, "<u2")[:-1].astype(np.uint8).tobytes().decode()
    assert prose.startswith(text)
    assert 0.93 < len(text) / len(prose) < 0.96
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*(shard["name"] for shard in shards), "val-00000.bin", "meta.json", "tokenizer.json"}
    assert meta["inputs"] == [str(tmp_path / "a.txt")]


def test_a_text_that_ends_exactly_with_a_shard_makes_no_empty_one(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x" * 19)
    meta = prepare(tmp_path, tmp_path / "out", val_fraction=0, shard_tokens=10)
    assert [shard.tokens for shard in meta.train.shards] == [10, 10]
    assert meta.val.shards == ()


@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe:400"])
def test_neither_batches_nor_pieces_show_in_the_tokens(
    tmp_path: Path, prose: str, tokenizer: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a.txt").write_text(prose)
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in prose.splitlines()))
    whole = prepare(tmp_path, tmp_path / "whole", tokenizer=tokenizer)
    monkeypatch.setattr(encode, "BATCH_CHARS", 700)
    monkeypatch.setattr(pieces.cut_pieces, "__defaults__", (200,))
    parts = prepare(tmp_path, tmp_path / "parts", tokenizer=tokenizer, shard_tokens=1000)
    assert parts.tokenizer_fingerprint == whole.tokenizer_fingerprint
    for name in ("train", "val"):
        ours, theirs = (Corpus.open(tmp_path / folder) for folder in ("whole", "parts"))
        assert np.array_equal(tokens_of(ours, name), tokens_of(theirs, name))
        assert ours.meta.split(name).text_bytes == theirs.meta.split(name).text_bytes
        assert ours.meta.split(name).documents == theirs.meta.split(name).documents


@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe:400"])
def test_the_text_can_be_read_back_from_the_corpus(
    write_corpus_of: Callable[..., Corpus], prose: str, tokenizer: str
):
    corpus = write_corpus_of(tokenizer=tokenizer)
    decode = corpus.tokenizer().decode
    assert decode(tokens_of(corpus, "train")) + decode(tokens_of(corpus, "val")) == prose
    assert corpus.meta.train.text_bytes + corpus.meta.val.text_bytes == len(prose.encode())


def test_bpe_learns_from_the_training_text_only_and_char_from_all_of_it(tmp_path: Path):
    (tmp_path / "a.txt").write_text("abcd efgh\n" * 200 + "ZYXWV ZYXWV\n" * 20)
    learned = {}
    for spec in ("bpe:300", "char"):
        prepare(tmp_path / "a.txt", tmp_path / spec, tokenizer=spec, val_fraction=0.12)
        learned[spec] = Corpus.open(tmp_path / spec).tokenizer()
    assert len(learned["bpe:300"].encode("abcd efgh")) == 2
    assert len(learned["bpe:300"].encode("ZYXWV")) == 5
    assert 0 not in learned["char"].encode("ZYXWV")


def test_ids_beyond_16_bits_take_32(tmp_path: Path):
    vocabulary = {"<unk>": 0, "<eos>": 1, "word": 70_000}
    definition = {"model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", **definition}))
    (tmp_path / "a.txt").write_text("word")
    meta = prepare(
        tmp_path / "a.txt", tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"), val_fraction=0
    )
    assert (meta.dtype, meta.vocab_size) == ("uint32", 70_001)
    assert (tmp_path / "out" / "train-00000.bin").read_bytes() == np.array([70_000, 1], "<u4").tobytes()


def test_the_same_text_gives_the_same_fingerprint_wherever_it_lies_and_other_text_another(
    tmp_path: Path, prose: str
):
    metas = {}
    for name, text in {"one": prose, "two": prose, "three": prose.replace("chapter", "Chapter", 1)}.items():
        (tmp_path / f"{name}.txt").write_text(text)
        metas[name] = prepare(tmp_path / f"{name}.txt", tmp_path / name)
    assert metas["one"].fingerprint == metas["two"].fingerprint != metas["three"].fingerprint


def test_progress_is_reported_up_to_the_whole_input(tmp_path: Path, prose: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "BATCH_CHARS", 1000)
    (tmp_path / "a.txt").write_text(prose)
    (tmp_path / "b.txt").write_text(prose)
    seen: list[tuple[int, int]] = []
    prepare([tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path / "out", progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {2 * len(prose.encode())}
    assert seen[-1][0] == seen[-1][1]


def test_bytes_that_are_not_utf8_stop_it_or_are_replaced_and_counted(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\n\xfe\n")
    with pytest.raises(DataError, match=r"line 2, byte offset 6: invalid UTF-8"):
        prepare(tmp_path / "a.txt", tmp_path / "out", val_fraction=0)
    assert not (tmp_path / "out").exists()
    meta = prepare(tmp_path / "a.txt", tmp_path / "out", val_fraction=0, encoding_errors="replace")
    assert meta.encoding_errors_replaced == 2
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.tokenizer().decode(tokens_of(corpus, "train")) == "good\nb\ufffdd\n\ufffd\n"


def test_an_existing_output_is_left_alone(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\nmore\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("kept")
    with pytest.raises(DataError, match="out exists; nothing was overwritten: choose another --output"):
        prepare(tmp_path / "a.txt", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_an_existing_output_is_refused_before_any_work_is_done(tmp_path: Path):
    with pytest.raises(DataError, match="exists; nothing was overwritten"):
        prepare("gone.txt", tmp_path)


def test_an_output_that_appears_meanwhile_is_left_alone(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\nmore\n")

    def someone_else(done: int, total: int) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "precious").write_text("kept")

    with pytest.raises(DataError, match="out exists; nothing was overwritten"):
        prepare(tmp_path / "a.txt", tmp_path / "out", progress=someone_else)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("text\nmore\n")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("parallax.data.shards.ShardWriter.append", refuse)
    with pytest.raises(DiskFullError, match="out: the disk or quota is full"):
        prepare(tmp_path / "in", tmp_path / "out")
    assert os.listdir(tmp_path) == ["in"]  # noqa: PTH208


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\nmore\n")
    with pytest.raises(DataError, match=r"was not made: .*File exists: .*a\.txt"):
        prepare(tmp_path / "a.txt", tmp_path / "a.txt" / "out")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"val_fraction": 1.0}, r"val_fraction=1\.0 must be at least 0 and below 1"),
        ({"val_fraction": -0.1}, r"val_fraction=-0\.1 must be"),
        ({"val_fraction": float("nan")}, "val_fraction=nan must be"),
        ({"shard_tokens": 0}, "shard_tokens=0 must be at least 1"),
        ({"inputs": ["builtin:python-manual", "a.txt"]}, "cannot be mixed"),
        ({"inputs": "builtin:bible"}, r"no such built-in corpus; .*builtin:python-manual"),
        ({"inputs": "gone.txt"}, "no such file or folder"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], complaint: str
):
    (tmp_path / "a.txt").write_text("text\nmore\n")
    with pytest.raises(DataError, match=complaint):
        prepare(**{"inputs": tmp_path / "a.txt", "output": tmp_path / "out", **options})
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_tokenizer_that_cannot_be_had_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\nmore\n")
    with pytest.raises(TokenizerError):
        prepare(tmp_path / "a.txt", tmp_path / "out", tokenizer="bpe:7")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbf", b""])
def test_files_without_text_are_refused(tmp_path: Path, raw: bytes):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(DataError, match="empty"):
        prepare(tmp_path / "a.txt", tmp_path / "out", val_fraction=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_empty_file_between_others_is_no_document(tmp_path: Path):
    for name, text in {"a": "one", "b": "", "c": "three"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    meta = prepare(tmp_path, tmp_path / "out", val_fraction=0)
    assert (meta.train.documents, meta.train.tokens) == (2, 10)
