"""GPT-2's tokenizer from files that lie here: transformers' own reading of them is the oracle."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, GPT2TokenizerFast

from parallax.data.tokenizer_export import transformers_texts
from parallax.data.tokenizer_files import load_tokenizer
from parallax.errors import TokenizerError

ROOT = Path(__file__).parents[2]
REAL = [
    path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "LICENSE", ROOT / "CONTRIBUTING.md")
]
STRANGE = [
    "don't they'll I'VE  two  spaces\t tab\n\n\nlines \r\n",
    "naïve café — “quotes” … Żółć Ωμέγα 東京 👩‍👩‍👧 \u200d\u00ad\ufeff",
    "3.14159 0xFFEE 10,000 a_b-c/d\\e  ",
    "",
    " ",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 tokenizer, learned from real text, as its two published files."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(REAL, trainer)
    folder = tmp_path_factory.mktemp("gpt2")
    engine.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(vocabulary | {"<|endoftext|>": len(vocabulary)}))
    return folder


def test_two_files_encode_as_in_transformers(files: Path) -> None:
    ours = load_tokenizer(files)
    theirs = GPT2TokenizerFast(vocab=str(files / "vocab.json"), merges=str(files / "merges.txt"))
    assert ours.vocab_size == len(theirs) == 901
    assert ours.eos_id == theirs.eos_token_id == 900
    for text in (*REAL, *STRANGE):
        ids = ours.encode(text).tolist()
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids) == text
    assert any(len(ours.encode(text)) < len(text.encode()) / 2 for text in REAL), "merges are used"


def test_a_tokenizer_json_encodes_as_the_two_files(files: Path, tmp_path: Path) -> None:
    GPT2Tokenizer.from_pretrained(files).save_pretrained(tmp_path)
    assert not (tmp_path / "merges.txt").exists()
    ours, two = load_tokenizer(tmp_path), load_tokenizer(files)
    assert ours.eos_id == two.eos_id
    assert all(ours.encode(text).tolist() == two.encode(text).tolist() for text in (*REAL, *STRANGE))


def test_what_is_exported_is_read_by_transformers_again(files: Path, tmp_path: Path) -> None:
    ours = load_tokenizer(files)
    for name, text in transformers_texts(ours, 128).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    theirs = GPT2TokenizerFast.from_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == ours.fingerprint
    assert all(theirs(text)["input_ids"] == ours.encode(text).tolist() for text in (*REAL, *STRANGE))


def test_added_tokens_follow_the_vocabulary(files: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    added = tmp_path / "added_tokens.json"
    added.write_text(json.dumps({"<|MASK|>": 901}))
    assert load_tokenizer(tmp_path).vocab_size == 902
    added.write_text(json.dumps({"<|MASK|>": 903}))
    with pytest.raises(TokenizerError, match=r"'<\|MASK\|>' is id 903, and after vocab\.json it would be 901"):
        load_tokenizer(tmp_path)
    added.write_text("[]")
    with pytest.raises(TokenizerError, match=r"added_tokens\.json: expected an object of token to id"):
        load_tokenizer(tmp_path)
    added.unlink()
    (tmp_path / "merges.txt").write_text("#version: 0.2\nnot-a-token neither\n")
    with pytest.raises(TokenizerError, match=r"vocab\.json and merges\.txt are not those of a GPT-2") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_with_one_of_the_two_files_has_no_tokenizer(files: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes((files / "vocab.json").read_bytes())
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: no such tokenizer file"):
        load_tokenizer(tmp_path)
