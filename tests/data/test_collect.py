import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallax.data.collect import CollectedSource, CollectOptions, parse_bytes, write_texts
from parallax.data.corpus import Corpus
from parallax.data.open_source import ReadOptions, open_source
from parallax.data.prepare import prepare, prepare_source
from parallax.data.text_reader import ReadTally
from parallax.errors import DataError

TEXTS = [f"text {n} " * (n % 10 + 1) for n in range(500)]


@pytest.fixture
def collected(tmp_path: Path) -> Callable[..., CollectedSource]:
    """What is taken of 500 lines; keyword arguments are those of `CollectOptions`."""
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "t.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def make(**options: Any) -> CollectedSource:
        return CollectedSource(open_source(file, 0.0, ReadOptions()), CollectOptions(**options))

    return make


def texts_of(source: CollectedSource) -> list[str]:
    return list(source.texts(ReadTally()))


@pytest.mark.parametrize("buffer", [2, 50, 10_000])
def test_every_text_comes_once_in_an_order_of_the_seed(collected: Callable[..., CollectedSource], buffer: int):
    first = texts_of(collected(seed=1, shuffle_buffer=buffer))
    assert first == texts_of(collected(seed=1, shuffle_buffer=buffer))
    assert first != texts_of(collected(seed=2, shuffle_buffer=buffer))
    assert first != TEXTS
    assert sorted(first) == sorted(TEXTS)


def test_a_buffer_of_one_keeps_the_order(collected: Callable[..., CollectedSource]):
    assert texts_of(collected(shuffle_buffer=1)) == TEXTS


def test_a_buffer_moves_a_text_forward_by_less_than_its_size(collected: Callable[..., CollectedSource]):
    order = [TEXTS.index(text) for text in texts_of(collected(shuffle_buffer=20))]
    assert all(place >= index - 19 for place, index in enumerate(order))


def test_lengths_and_size_limit_what_is_taken_and_the_rest_is_counted(collected: Callable[..., CollectedSource]):
    source = collected(min_chars=20, max_chars=60)
    found = texts_of(source)
    assert sorted(found) == sorted(text for text in TEXTS if 20 <= len(text) <= 60)
    tally = source.tally
    assert tally.read == 500 == tally.kept + tally.too_short + tally.too_long
    assert (tally.kept, tally.kept_bytes, tally.is_full) == (len(found), sum(map(len, found)), False)
    limited = collected(max_bytes=1000)
    assert sum(map(len, texts_of(limited))) == limited.tally.kept_bytes <= 1000
    assert limited.tally.is_full


def test_what_is_written_is_read_back_as_it_was(collected: Callable[..., CollectedSource], tmp_path: Path):
    write_texts(collected(), tmp_path / "out.jsonl", "body")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["body"] for line in lines] == texts_of(collected())
    write_texts(collected(), tmp_path / "out.txt", "text")
    assert (tmp_path / "out.txt").read_text().split("\n\n")[:-1] == texts_of(collected())


def test_a_corpus_of_it_is_that_of_the_text_it_writes(collected: Callable[..., CollectedSource], tmp_path: Path):
    write_texts(collected(), tmp_path / "out.jsonl", "text")
    prepare(tmp_path / "out.jsonl", tmp_path / "two-steps", tokenizer="bpe:300", val_fraction=0.1)
    prepare_source(collected(val_fraction=0.1), tmp_path / "one", ["t.jsonl"], "bpe:300", 0.1)
    assert Corpus.open(tmp_path / "one").fingerprint == Corpus.open(tmp_path / "two-steps").fingerprint


def test_what_exists_is_left_alone_and_a_failure_leaves_nothing(
    collected: Callable[..., CollectedSource], tmp_path: Path
):
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(DataError, match="exists; nothing was overwritten"):
        write_texts(collected(), tmp_path / "out.jsonl", "text")
    with pytest.raises(DataError, match="none of the 500 documents read is taken"):
        write_texts(collected(min_chars=1000), tmp_path / "none.jsonl", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shuffle_buffer": 0}, "shuffle_buffer=0 must be at least 1"),
        ({"min_chars": 5, "max_chars": 4}, "min_chars=5 and max_chars=4 leave no length"),
        ({"min_chars": -1}, "min_chars=-1"),
        ({"val_fraction": 1.0}, r"val_fraction=1\.0 must be"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    collected: Callable[..., CollectedSource], options: dict[str, Any], said: str
):
    with pytest.raises(DataError, match=said):
        collected(**options)


def test_sizes_are_numbers_with_units():
    given = {"1000": 1000, "7B": 7, "100MB": 10**8, "2gb": 2 * 10**9, "1.5 KB": 1500, "3M": 3 * 10**6}
    assert {text: parse_bytes(text) for text in given} == given


@pytest.mark.parametrize("text", ["", "MB", "-5", "0", "ten", "5XB", "1e6"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(DataError, match="expected a size such as 500000, 100MB or 2GB"):
        parse_bytes(text)
