import json
from pathlib import Path

import numpy as np
import pytest

from parallax.data.build_tokenizer import train_char
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.corpus import Corpus
from parallax.data.inspect_data import inspect_corpus, inspect_text
from parallax.data.open_source import ReadOptions
from parallax.data.prepare import prepare
from parallax.data.statistics import TokenStatistics
from parallax.errors import DataError

EOS = 256
TOKENS = [97, 98, 97, EOS, 97, EOS, 99, 99, 99, 99, 99, EOS, 97]


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
def test_counts_and_lengths_do_not_depend_on_how_tokens_arrive(chunk: int):
    statistics = TokenStatistics(ByteTokenizer())
    for start in range(0, len(TOKENS), chunk):
        statistics.add(np.array(TOKENS[start : start + chunk], dtype=np.uint16))
    assert (statistics.num_tokens, statistics.num_used) == (13, 4)
    assert [(entry.token, entry.count) for entry in statistics.most_frequent(3)] == [
        ("'c'", 5),
        ("'a'", 4),
        ("end of document", 3),
    ]
    lengths = statistics.lengths()
    assert lengths is not None
    assert (lengths.count, lengths.mean, lengths.shortest, lengths.longest) == (4, 2.5, 1, 5)
    assert lengths.histogram == [(1, 1, 2), (2, 3, 1), (4, 7, 1)]
    assert statistics.first_documents() == ["aba", "a"]


def test_unknown_tokens_are_counted():
    tokenizer = train_char(["abc"])
    statistics = TokenStatistics(tokenizer)
    statistics.add(tokenizer.encode("abcxyza"))
    assert statistics.num_unknown == 3
    assert statistics.most_frequent(1)[0].token == "unknown"


def test_a_corpus_is_described_as_its_meta_data_say(tmp_path: Path, prose: str):
    (tmp_path / "a.txt").write_bytes(prose.encode() + b"\xff")
    meta = prepare(tmp_path / "a.txt", tmp_path / "out", tokenizer="bpe:300", encoding_errors="replace")
    report = inspect_corpus(tmp_path / "out", None, verify=True)
    assert json.loads(json.dumps(report))["path"] == str(tmp_path / "out")
    assert report["fingerprint"] == meta.fingerprint
    assert {name: split["tokens"] for name, split in report["splits"].items()} == {
        "train": meta.train.tokens,
        "val": meta.val.tokens,
    }
    assert report["replaced"] == 1
    assert report["document_tokens"]["count"] == 2
    assert report["first_documents"][0].startswith("Line 0 of the 0th chapter")
    assert report["bytes_per_token"] == pytest.approx((len(prose) + 3) / (meta.train.tokens + meta.val.tokens))


def test_text_is_described_without_making_anything_of_it(tmp_path: Path, prose: str):
    (tmp_path / "a.txt").write_text(prose)
    report = inspect_text(tmp_path / "a.txt", "byte", ReadOptions())
    assert report["splits"]["all"] == {
        "documents": 1,
        "tokens": len(prose) + 1,
        "text_bytes": len(prose),
        "shards": 0,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_damaged_corpus_is_found_when_checksums_are_asked_for(tmp_path: Path, prose: str):
    (tmp_path / "a.txt").write_text(prose)
    prepare(tmp_path / "a.txt", tmp_path / "out")
    shard = next((tmp_path / "out").glob("train*"))
    raw = bytearray(shard.read_bytes())
    raw[0] ^= 1
    shard.write_bytes(raw)
    inspect_corpus(tmp_path / "out", None, verify=False)
    with pytest.raises(DataError, match="its checksum differs"):
        inspect_corpus(tmp_path / "out", None, verify=True)
    assert Corpus.open(tmp_path / "out")


def test_a_tokenizer_that_would_be_learned_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="--tokenizer bpe:300 would be learned"):
        inspect_text(tmp_path / "a.txt", "bpe:300", ReadOptions())
