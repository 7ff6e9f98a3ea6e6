import json
from pathlib import Path

import pytest

from parallax.data.build_tokenizer import train_bpe
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.corpus import Corpus
from parallax.data.prepare import prepare
from parallax.data.text_split import encode_text_files
from parallax.errors import DataError


def test_raw_text_is_encoded_as_a_corpus_of_it_would_be(tmp_path: Path, prose: str):
    (tmp_path / "a.txt").write_text(prose)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "é"}) + "\n" + json.dumps({"text": "b"}))
    tokenizer = train_bpe([prose], 400)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    prepare(tmp_path, tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"), val_fraction=0)
    expected = Corpus.open(tmp_path / "out").split("train")
    found = encode_text_files([tmp_path / "a.txt", tmp_path / "b.jsonl"], tokenizer)
    assert found.num_tokens == expected.num_tokens
    assert found.read(0, found.num_tokens).tolist() == expected.read(0, expected.num_tokens).tolist()
    assert found.num_bytes == expected.num_bytes == len(prose) + 3
    assert found.vocab_size == 400


def test_more_text_than_fits_in_memory_names_the_way_out(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x" * 11)
    assert encode_text_files(tmp_path / "a.txt", ByteTokenizer(), max_bytes=11).num_tokens == 12
    with pytest.raises(DataError, match=r"11 bytes of text are more than the 10 .*parallax data prepare"):
        encode_text_files(tmp_path / "a.txt", ByteTokenizer(), max_bytes=10)


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf"])
def test_a_file_without_text_is_refused(tmp_path: Path, raw: bytes):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(DataError, match="empty"):
        encode_text_files(tmp_path / "a.txt", ByteTokenizer())
