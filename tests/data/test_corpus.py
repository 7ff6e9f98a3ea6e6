import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.corpus import Corpus, check_vocabulary
from parallax.data.token_split import TokenSplit
from parallax.errors import DataError, TokenizerError


@pytest.fixture
def corpus(write_corpus_of: Callable[..., Corpus]) -> Corpus:
    """A corpus in several shards."""
    return write_corpus_of(shard_tokens=5000)


def test_a_sound_corpus_opens_and_verifies(corpus: Corpus):
    corpus.verify()
    assert corpus.fingerprint == Corpus.open(corpus.path).fingerprint
    assert isinstance(corpus.tokenizer(), ByteTokenizer)


def test_a_shard_whose_content_changed_is_found_by_verifying(corpus: Corpus):
    file = corpus.path / "train-00001.bin"
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DataError, match=r"train-00001\.bin: damaged shard, its checksum differs; prepare"):
        Corpus.open(corpus.path).verify()


def test_a_shard_that_is_cut_off_or_gone_is_found_on_opening(corpus: Corpus):
    file = corpus.path / "val-00000.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"val-00000\.bin: damaged shard, it has \d+ bytes instead of \d+"):
        Corpus.open(corpus.path)
    file.unlink()
    with pytest.raises(DataError, match=r"val-00000\.bin: damaged shard, it is missing"):
        Corpus.open(corpus.path)


def test_a_folder_that_is_not_there_names_its_nearest_and_the_way_out(corpus: Corpus):
    with pytest.raises(DataError, match=r"did you mean .*corpus\? Or make one: parallax data prepare --input"):
        Corpus.open(corpus.path.with_name("corpsu"))
    with pytest.raises(DataError, match="no such corpus; make one: parallax data prepare"):
        Corpus.open("no/such/folder")


def test_text_in_place_of_a_corpus_names_the_command_that_prepares_it(corpus: Corpus):
    text = corpus.path.with_name("text.txt")
    with pytest.raises(DataError, match=r"a file, .* parallax data prepare --input .*text\.txt --output"):
        Corpus.open(text)
    with pytest.raises(DataError, match="a file, expected the folder of a prepared corpus; give its folder"):
        Corpus.open(corpus.path / "train-00000.bin")


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"not a prepared corpus \(it has no meta\.json\)"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format_version": 2}, "format version 2, this parallax reads version 1"),
        ({"dtype": "int8"}, r"damaged \(dtype: "),
        ({"surprise": 1}, r"damaged \(surprise: "),
    ],
)
def test_a_meta_file_of_another_format_is_refused(corpus: Corpus, change: dict[str, object], complaint: str):
    file = corpus.path / "meta.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=rf"meta\.json: {complaint}.*parallax data prepare"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_meta_file_is_refused(corpus: Corpus, text: str):
    (corpus.path / "meta.json").write_text(text)
    with pytest.raises(DataError, match=r"meta\.json: damaged"):
        Corpus.open(corpus.path)


def test_another_tokenizer_in_the_folder_is_refused(corpus: Corpus, write_corpus_of: Callable[..., Corpus]):
    file = corpus.path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"type": "WordLevel", "vocab": {"<eos>": 0}, "unk_token": "<eos>"}}))
    with pytest.raises(TokenizerError, match=r"the corpus .* was made with another tokenizer"):
        corpus.tokenizer()
    file.unlink()
    with pytest.raises(TokenizerError, match="no such tokenizer file"):
        corpus.verify()


def test_a_split_that_was_not_prepared_is_refused(write_corpus_of: Callable[..., Corpus]):
    corpus = write_corpus_of(val_fraction=0)
    assert corpus.has_split("train")
    assert not corpus.has_split("val")
    with pytest.raises(DataError, match="has no val split, it was prepared with --val-fraction 0"):
        corpus.split("val")


def test_a_model_with_too_few_ids_for_the_corpus_is_refused_with_the_number_it_needs(corpus: Corpus):
    check_vocabulary(corpus.meta, 257)
    check_vocabulary(corpus.meta, 512)
    with pytest.raises(DataError, match=r"ids up to 256 .*model\.vocab_size=256; set model\.vocab_size=257"):
        check_vocabulary(corpus.meta, 256)


def test_reading_crosses_the_borders_of_shards(split_of: Callable[..., TokenSplit]):
    split = split_of(103, shard_tokens=10)
    assert split.num_tokens == 103
    for start, length in [(0, 103), (9, 1), (10, 10), (5, 40), (99, 4), (103, 0), (0, 0)]:
        assert split.read(start, length).tolist() == list(range(start, start + length))


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (100, 4), (104, 0), (5, -1)])
def test_reading_beyond_the_split_is_an_error(split_of: Callable[..., TokenSplit], start: int, length: int):
    with pytest.raises(IndexError):
        split_of(103).read(start, length)


def test_counts_are_those_of_all_shards(split_of: Callable[..., TokenSplit], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("parallax.data.token_split._COUNT_CHUNK_TOKENS", 7)
    split = split_of([0, 2, 2, 4] * 10, vocab_size=6, shard_tokens=9)
    assert split.counts().tolist() == [10, 0, 20, 0, 10, 0]


def test_an_id_over_the_vocabulary_is_damage_rather_than_a_crash_in_the_model(split_of: Callable[..., TokenSplit]):
    split = split_of([1, 2, 9], vocab_size=5)
    assert split.read(0, 2).tolist() == [1, 2]
    with pytest.raises(DataError, match="the test split: token id 9 is not in the vocabulary of 5"):
        split.read(1, 2)
    with pytest.raises(DataError, match="token id 9"):
        split.counts()


def test_bytes_per_token_count_the_text_over_all_tokens(corpus: Corpus, prose: str):
    split = corpus.split("val")
    assert split.num_bytes == split.num_tokens - 1
    assert split.bytes_per_token == split.num_bytes / split.num_tokens
