import random
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax.data.build_tokenizer import train_bpe
from parallax.data.pieces import cut_pieces, find_cut

WORDS = ["the", "quick", "fox's", "12", "dogs,", "—", "naïve…", "(indeed)", "it's", "don't!", "x_y", "##"]


def test_pieces_put_together_are_the_text_and_none_is_too_long():
    text = "".join(random.Random(1).choices(" \n\tabé,", k=5000))

    @given(st.integers(1, 300), st.integers(1, 700))
    def check(piece_chars: int, chunk_chars: int) -> None:
        chunks = [text[start : start + chunk_chars] for start in range(0, len(text), chunk_chars)]
        pieces = list(cut_pieces(chunks, piece_chars))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= piece_chars
        assert min(map(len, pieces)) > 0
        assert pieces == list(cut_pieces([text], piece_chars))

    check()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("one two\nthree four\n five six", "one two\n"),
        ("one two\n\nthree four five", "one two\n\nthree"),
        ("one\r\ntwo\r\nthree four", "one\r\ntwo\r\nthree"),
        ("aaa  \n\n  bbbbbb", "aaa  \n\n  "),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaa"),
    ],
    ids=["single newline", "no single newline: before a space", "CRLF: before a space", "any white space", "hard"],
)
def test_where_a_piece_ends(text: str, left: str):
    padded = text + "zzzz" * 3
    assert padded[: find_cut(padded, 0, 18 if "aaa" in text and " " not in text else len(left) + 4)] == left


def test_nothing_stands_in_for_the_empty_text():
    assert list(cut_pieces([])) == []
    assert list(cut_pieces(["", ""])) == []


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n", "\n    "])
def test_bpe_tokens_of_the_pieces_are_those_of_the_whole(ending: str):
    generator = random.Random(2)
    lines = [" ".join(generator.choices(WORDS, k=generator.randint(1, 12))) for _ in range(600)]
    text = ending.join(lines)
    tokenizer = train_bpe([text], 600)
    whole = tokenizer.encode(text).tolist()
    for piece_chars in (64, 100, 257, 1000):
        pieces = list(cut_pieces([text], piece_chars))
        assert len(pieces) > len(text) // (2 * piece_chars)
        assert [token for piece in pieces for token in tokenizer.encode(piece).tolist()] == whole


def test_bpe_tokens_of_the_pieces_are_those_of_the_whole_for_real_text():
    text = "\n\n".join(topics.values())[:200_000]
    tokenizer = train_bpe([text], 1000)
    pieces = list(cut_pieces([text], 2000))
    assert len(pieces) > 50
    together = [token for piece in pieces for token in tokenizer.encode(piece).tolist()]
    assert together == tokenizer.encode(text).tolist()
