import json
from pathlib import Path

import numpy as np
import pytest

from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.data.token_file import open_token_file
from parallax.data.tokenize_file import tokenize_file
from parallax.errors import DataError, ParallaxError, TokenizerError


@pytest.fixture
def text(tmp_path: Path, prose: str) -> Path:
    (tmp_path / "a.txt").write_text(prose)
    return tmp_path / "a.txt"


@pytest.fixture
def token_file(tmp_path: Path, text: Path) -> Path:
    """A .bin of a small BPE, its notes beside it."""
    tokenize_file(text, tmp_path / "train.bin", tokenizer="bpe:300")
    return tmp_path / "train.bin"


def test_the_file_is_nothing_but_uint32_ids(tmp_path: Path, text: Path, prose: str):
    notes = tokenize_file(text, tmp_path / "train.bin")
    ids = np.frombuffer((tmp_path / "train.bin").read_bytes(), "<u4")
    assert ids[-1] == 256
    assert ids[:-1].astype(np.uint8).tobytes() == prose.encode()
    assert (notes.tokens, notes.documents, notes.text_bytes) == (ids.size, 1, len(prose))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "train.bin", "train.bin.json"]


def test_it_is_read_as_a_corpus_with_its_tokenizer(token_file: Path, text: Path, prose: str, tmp_path: Path):
    corpus = Corpus.open(token_file)
    corpus.verify()
    prepare(text, tmp_path / "folder", tokenizer="bpe:300", val_fraction=0)
    folder = Corpus.open(tmp_path / "folder")
    ours, theirs = corpus.split("train"), folder.split("train")
    assert np.array_equal(ours.read(0, ours.num_tokens), theirs.read(0, theirs.num_tokens))
    assert corpus.tokenizer().fingerprint == folder.meta.tokenizer_fingerprint
    assert corpus.tokenizer().decode(ours.read(0, ours.num_tokens)) == prose
    assert ours.bytes_per_token == theirs.bytes_per_token
    assert not corpus.has_split("val")
    assert corpus.measured("val").num_tokens == ours.num_tokens
    with pytest.raises(DataError, match=r"one file is one split, it has no val split; set data\.val_path"):
        corpus.split("val")


def test_the_notes_serve_as_tokenizer_for_other_text(token_file: Path, text: Path, tmp_path: Path):
    notes = tokenize_file(text, tmp_path / "val.bin", tokenizer=f"{token_file}.json")
    assert notes.tokenizer_fingerprint == Corpus.open(token_file).meta.tokenizer_fingerprint
    assert (tmp_path / "val.bin").read_bytes() == token_file.read_bytes()


def test_a_file_from_elsewhere_is_read_with_the_tokenizer_that_is_named(token_file: Path, tmp_path: Path):
    with_notes = Corpus.open(token_file)
    (tmp_path / "foreign.bin").write_bytes(token_file.read_bytes())
    foreign = Corpus.open(tmp_path / "foreign.bin", with_notes.tokenizer())
    assert foreign.fingerprint == with_notes.fingerprint
    assert foreign.meta.train == with_notes.meta.train.model_copy(
        update={"shards": (with_notes.meta.train.shards[0].model_copy(update={"name": "foreign.bin"}),)}
    )


def test_the_bytes_of_a_large_foreign_file_are_taken_from_parts_of_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("parallax.data.token_file._SAMPLE_TOKENS", 1600)
    np.full(100_000, ord("x"), "<u4").tofile(tmp_path / "x.bin")
    meta, _ = open_token_file(tmp_path / "x.bin", ByteTokenizer())
    assert meta.train.text_bytes == 100_000


@pytest.mark.parametrize(
    ("raw", "tokenizer", "error", "said"),
    [
        (b"123456", None, DataError, "6 bytes, expected a positive multiple of 4"),
        (b"", None, DataError, "0 bytes, expected a positive multiple of 4"),
        (b"\1\0\0\0", None, TokenizerError, r"no x\.bin\.json beside it says which .*name it: data\.tokenizer="),
        (b"\1\0\0\0\1\1\0\0", ByteTokenizer(), DataError, "id 257 at position 1 is not in .* vocabulary of 257"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, raw: bytes, tokenizer: ByteTokenizer | None, error: type[ParallaxError], said: str
):
    (tmp_path / "x.bin").write_bytes(raw)
    with pytest.raises(error, match=said) as caught:
        Corpus.open(tmp_path / "x.bin", tokenizer)
    assert "\n" not in str(caught.value)


def test_notes_that_are_damaged_or_of_another_file_are_refused(token_file: Path):
    notes = token_file.with_name("train.bin.json")
    whole = json.loads(notes.read_text())
    for change, said in [
        ({"tokens": 5}, "they do not belong together"),
        ({"eos_id": "x"}, r"train\.bin\.json: damaged \(eos_id"),
        ({"tokenizer_fingerprint": "0"}, "damaged .another tokenizer"),
    ]:
        notes.write_text(json.dumps({**whole, **change}))
        with pytest.raises(ParallaxError, match=said):
            Corpus.open(token_file)


def test_a_changed_id_is_found_by_its_checksum(token_file: Path):
    raw = bytearray(token_file.read_bytes())
    raw[0] ^= 1
    token_file.write_bytes(raw)
    with pytest.raises(DataError, match=r"train\.bin: damaged shard, its checksum differs"):
        Corpus.open(token_file).verify()


@pytest.mark.parametrize("name", ["train.bin", "train.bin.json"])
def test_nothing_is_overwritten(tmp_path: Path, text: Path, name: str):
    (tmp_path / name).write_text("precious")
    with pytest.raises(DataError, match="exists; nothing was overwritten"):
        tokenize_file(text, tmp_path / "train.bin")
    assert (tmp_path / name).read_text() == "precious"


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path: Path, text: Path):
    def someone_else(done: int, total: int) -> None:
        (tmp_path / "train.bin").write_text("precious")

    with pytest.raises(DataError, match=r"train\.bin exists; nothing was overwritten"):
        tokenize_file(text, tmp_path / "train.bin", progress=someone_else)
    assert (tmp_path / "train.bin").read_text() == "precious"


def test_another_ending_is_refused(tmp_path: Path, text: Path):
    with pytest.raises(DataError, match=r"expected a name that ends in \.bin"):
        tokenize_file(text, tmp_path / "train.tokens")
