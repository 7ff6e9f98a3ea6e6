import hashlib
import json
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from parallax.data.build_tokenizer import build_tokenizer, sample_evenly, train_bpe, train_char
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.library_tokenizer import LibraryTokenizer
from parallax.data.tokenizer import Tokenizer, check_same_tokenizer
from parallax.data.tokenizer_files import tokenizer_from_json
from parallax.errors import TokenizerError

STORY = "The quick brown fox jumps over the lazy dog, and the dog says: hm — naïve fox!\n" * 20
BPE = train_bpe([STORY], 300)
CHAR = train_char([STORY])
ALL: list[Tokenizer] = [ByteTokenizer(), BPE, CHAR]


def never() -> Iterable[str]:
    raise AssertionError("nothing has to be learned")


@given(st.text())
def test_byte_and_bpe_give_back_any_text(text: str):
    for tokenizer in (ByteTokenizer(), BPE):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(alphabet=sorted(set(STORY))))
def test_char_gives_back_any_text_of_its_alphabet_one_id_a_character(text: str):
    ids = CHAR.encode(text)
    assert len(ids) == len(text)
    assert CHAR.decode(ids) == text


def test_char_numbers_its_alphabet_by_code_point_after_unknown_and_eos():
    tokenizer = train_char(["ba", "cab\n"])
    assert tokenizer.vocab_size == 2 + 4
    assert tokenizer.eos_id == 1
    assert tokenizer.encode("\nabcd").tolist() == [2, 3, 4, 5, 0]


def test_byte_ids_are_the_bytes_and_eos_comes_after_them():
    tokenizer = build_tokenizer("byte", never)
    assert tokenizer.encode("aé").tolist() == [97, 0xC3, 0xA9]
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (257, 256)


def test_bpe_has_the_size_asked_for_with_eos_in_it():
    assert BPE.vocab_size == 300
    assert 0 <= BPE.eos_id < 300
    assert BPE.encode(STORY).max() < 300
    assert len(BPE.encode(STORY)) < len(STORY.encode())


@pytest.mark.parametrize("tokenizer", ALL, ids=["byte", "bpe", "char"])
@pytest.mark.parametrize("text", ["<|endoftext|>", "a<eos>b", "<unk> </s>", "x<|endoftext|><eos>"])
def test_plain_text_never_becomes_an_end_of_document(tokenizer: Tokenizer, text: str):
    assert tokenizer.eos_id not in tokenizer.encode(text)


@pytest.mark.parametrize("tokenizer", ALL, ids=["byte", "bpe", "char"])
def test_eos_and_ids_beyond_the_vocabulary_decode_to_nothing(tokenizer: Tokenizer):
    ids = [*tokenizer.encode("the fox"), tokenizer.eos_id, tokenizer.vocab_size, 10**6]
    assert tokenizer.decode(ids) == "the fox"


def test_broken_utf8_decodes_to_replacement_characters():
    assert ByteTokenizer().decode([0xC3, 97]) == "\ufffda"


@pytest.mark.parametrize("tokenizer", ALL, ids=["byte", "bpe", "char"])
def test_the_serialised_form_encodes_alike_and_has_the_same_fingerprint(tokenizer: Tokenizer):
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.vocab_size, again.eos_id) == (tokenizer.vocab_size, tokenizer.eos_id)
    assert np.array_equal(again.encode(STORY), tokenizer.encode(STORY))
    assert again.eos_id not in again.encode("<|endoftext|><eos>")


def test_the_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    raw = json.loads(BPE.to_json())
    turned = {**raw, "tokenizer": {key: raw["tokenizer"][key] for key in reversed(raw["tokenizer"])}}
    assert tokenizer_from_json(json.dumps(turned)).fingerprint == BPE.fingerprint
    raw["tokenizer"]["model"]["dropout"] = 0.1
    assert tokenizer_from_json(json.dumps(raw)).fingerprint != BPE.fingerprint


def test_training_is_deterministic():
    assert train_bpe([STORY], 300).fingerprint == BPE.fingerprint
    assert train_char([STORY]).fingerprint == CHAR.fingerprint


def test_a_batch_encodes_as_its_texts_do():
    texts = ["the fox", "", "jumps\n\n", "é"]
    for tokenizer in ALL:
        batch = tokenizer.encode_batch(texts)
        assert [ids.tolist() for ids in batch] == [tokenizer.encode(text).tolist() for text in texts]
        assert {ids.dtype for ids in batch} == {np.dtype(np.int64)}


@pytest.mark.parametrize("tokenizer", ALL, ids=["byte", "bpe", "char"])
def test_a_lone_surrogate_is_refused_in_one_line(tokenizer: Tokenizer):
    with pytest.raises(TokenizerError, match=r"character 2 .*'\\udce9'"):
        tokenizer.encode("ab\udce9")


def test_truncation_padding_and_added_tokens_of_a_file_are_switched_off():
    engine = Engine(models.WordLevel({"<eos>": 0, "[CLS]": 1, "a": 2}, unk_token="<eos>"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 1)])
    engine.enable_truncation(2)
    engine.enable_padding(length=8)
    tokenizer = LibraryTokenizer(json.loads(engine.to_str()))
    assert tokenizer.encode("a a a a").tolist() == [2, 2, 2, 2]


def test_the_vocabulary_reaches_to_the_largest_id_although_ids_have_gaps():
    engine = Engine(models.WordLevel({"<eos>": 0, "a": 90}, unk_token="<eos>"))
    assert LibraryTokenizer(json.loads(engine.to_str())).vocab_size == 91


def test_a_tokenizer_without_an_end_of_document_is_refused_with_the_way_out():
    engine = Engine(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(TokenizerError, match=r"none of the end-of-document tokens .*tokenizer_config\.json"):
        LibraryTokenizer(json.loads(engine.to_str()))


@pytest.mark.parametrize("spec", ["bpe:", "bpe:many", "bpe:-5", "bpe:256", "bpe:1e4"])
def test_a_bpe_size_that_is_none_is_refused(spec: str):
    with pytest.raises(TokenizerError, match=r"at least 257.*bpe:8000"):
        build_tokenizer(spec, never)


def test_another_tokenizer_than_the_owners_is_refused():
    check_same_tokenizer(BPE, BPE.fingerprint, "the checkpoint")
    with pytest.raises(TokenizerError, match="the checkpoint was made with another tokenizer"):
        check_same_tokenizer(ByteTokenizer(), BPE.fingerprint, "the checkpoint")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(50, 400))
def test_a_sample_is_bounded_and_evenly_spaced(lengths: list[int], limit: int):
    texts = [f"{index:03d}".ljust(length + 3, ".") for index, length in enumerate(lengths)]
    kept = [int(text[:3]) for text in sample_evenly(texts, limit)]
    assert sum(len(texts[index]) for index in kept) <= max(limit, len(texts[0]))
    assert kept[0] == 0
    gaps = set(np.diff(kept).tolist())
    assert len(gaps) <= 1
    stride = gaps.pop() if gaps else None
    if stride == 1:
        assert kept == list(range(len(texts)))
    elif stride is not None:
        assert stride & (stride - 1) == 0
        assert kept[-1] + stride >= len(texts)


def test_bpe_learns_nothing_of_what_is_beyond_its_sample(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("parallax.data.build_tokenizer.BPE_SAMPLE_CHARS", 1000)
    texts = ["abcabc " * 100 if index % 16 == 0 else "xyzxyz " * 100 for index in range(16)]
    assert len(train_bpe(texts, 260).encode("abc")) < len(train_bpe(texts, 260).encode("xyz"))


def test_fingerprints_are_sha256_of_the_form():
    assert ByteTokenizer().fingerprint == hashlib.sha256(b'{"type": "byte"}').hexdigest()
