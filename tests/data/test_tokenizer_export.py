"""Tokenizers as transformers reads them."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from parallax.data.build_tokenizer import train_bpe, train_char
from parallax.data.byte_definition import byte_definition, is_byte_definition
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.library_tokenizer import LibraryTokenizer
from parallax.data.tokenizer_export import transformers_texts
from parallax.data.tokenizer_files import load_tokenizer
from parallax.errors import TokenizerError

TEXT = "Grüße, world: the cat sat on the mat.\n"


def written(texts: dict[str, str], folder: Path) -> Path:
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("train", [train_char, lambda texts: train_bpe(texts, 280)], ids=["char", "bpe"])
def test_transformers_gives_the_same_ids_and_the_same_end_of_document(train, tmp_path: Path) -> None:
    ours: LibraryTokenizer = train([TEXT])
    folder = written(transformers_texts(ours, 64), tmp_path)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs(TEXT)["input_ids"] == ours.encode(TEXT).tolist()
    assert theirs.decode(theirs(TEXT)["input_ids"]) == TEXT
    assert theirs.eos_token_id == ours.eos_id
    assert theirs.model_max_length == 64
    assert load_tokenizer(folder).fingerprint == ours.fingerprint


def test_the_bytes_of_a_text_are_transformers_ids_too(tmp_path: Path) -> None:
    folder = written(transformers_texts(ByteTokenizer(), 64), tmp_path)
    theirs = AutoTokenizer.from_pretrained(folder)
    every = "".join(map(chr, [*range(0x250), 0x20AC, 0x1F600])) + TEXT + "<|endoftext|>  \r\n\t x"
    assert theirs(every)["input_ids"] == list(every.encode())
    assert theirs.decode(list(every.encode())) == every
    assert theirs.decode([0xC3, 0x41, 256], skip_special_tokens=True) == ByteTokenizer().decode([0xC3, 0x41, 256])
    assert (theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (256, 256, 257)
    assert theirs(["abc", "a"], padding=True)["input_ids"] == [[97, 98, 99], [256, 256, 97]]
    assert load_tokenizer(folder).fingerprint == ByteTokenizer().fingerprint


def test_a_byte_tokenizer_that_transformers_wrote_is_known_again(tmp_path: Path) -> None:
    folder = written(transformers_texts(ByteTokenizer(), 64), tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").fingerprint == ByteTokenizer().fingerprint


@pytest.mark.parametrize("change", ["merges", "pre_tokenizer", "added_tokens", "normalizer"])
def test_other_byte_level_tokenizers_stay_themselves(change: str) -> None:
    definition = json.loads(json.dumps(byte_definition()))
    assert is_byte_definition(definition)
    if change == "merges":
        definition["model"]["merges"] = [["a", "b"]]
    elif change == "added_tokens":
        definition["added_tokens"][0]["id"] = 257
    else:
        definition[change] = {"type": "Lowercase"} if change == "normalizer" else None
    assert not is_byte_definition(definition)


def test_a_kind_that_transformers_cannot_have_is_refused_in_one_line() -> None:
    class Morse:
        def to_json(self) -> str:
            return '{"type": "morse"}'

    with pytest.raises(TokenizerError, match="a tokenizer of the kind 'morse' cannot be written for transformers"):
        transformers_texts(Morse(), 8)
