"""Tokenizers as transformers reads them."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from parallax.data.build_tokenizer import train_bpe, train_char
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.library_tokenizer import LibraryTokenizer
from parallax.data.tokenizer_export import transformers_texts
from parallax.data.tokenizer_files import load_tokenizer

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


def test_the_byte_tokenizer_is_written_in_its_own_form(tmp_path: Path) -> None:
    texts = transformers_texts(ByteTokenizer(), 64)
    assert list(texts) == ["tokenizer.json"]
    assert load_tokenizer(written(texts, tmp_path)).fingerprint == ByteTokenizer().fingerprint
