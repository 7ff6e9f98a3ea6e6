import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Engine

from parallax.data.build_tokenizer import build_tokenizer
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.tokenizer_files import load_tokenizer, tokenizer_from_json
from parallax.errors import TokenizerError


def hugging_face_folder(folder: Path, *tokens: str) -> Path:
    engine = Engine(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=tokens[0]))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(exist_ok=True)
    engine.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("token", ["<stop>", {"content": "<stop>", "special": True}])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_the_eos_is_the_one_that_the_configuration_beside_the_file_names(tmp_path: Path, name: str, token: object):
    folder = hugging_face_folder(tmp_path / "model", "<unk>", "</s>", "<stop>", "a")
    (folder / name).write_text(json.dumps({"eos_token": token}))
    assert load_tokenizer(folder).eos_id == 2
    assert load_tokenizer(folder / "tokenizer.json").eos_id == 2
    assert build_tokenizer(str(folder), list).eos_id == 2


def test_without_a_configuration_a_customary_eos_is_found(tmp_path: Path):
    assert load_tokenizer(hugging_face_folder(tmp_path / "model", "<unk>", "a", "</s>")).eos_id == 2


def test_an_eos_that_the_vocabulary_lacks_is_refused_with_the_file_named(tmp_path: Path):
    folder = hugging_face_folder(tmp_path / "model", "<unk>", "a", "</s>")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<gone>"}')
    with pytest.raises(TokenizerError, match=r"model/tokenizer\.json: .*'<gone>' is not in"):
        load_tokenizer(folder)


def test_an_eos_that_the_file_matches_in_text_as_an_ordinary_token_is_not_matched_any_more(tmp_path: Path):
    folder = hugging_face_folder(tmp_path / "model", "<unk>", "</s>", "a")
    engine = Engine.from_file(str(folder / "tokenizer.json"))
    engine.add_tokens([AddedToken("</s>", special=False)])
    engine.save(str(folder / "tokenizer.json"))
    assert 1 in engine.encode("a</s>").ids
    assert 1 not in load_tokenizer(folder).encode("a</s>")


def test_a_corpus_or_checkpoint_folder_gives_its_tokenizer_back(tmp_path: Path):
    learned = build_tokenizer("bpe:280", lambda: ["some text to learn from, some more text"])
    (tmp_path / "tokenizer.json").write_text(learned.to_json())
    assert load_tokenizer(tmp_path).fingerprint == learned.fingerprint
    (tmp_path / "tokenizer.json").write_text(ByteTokenizer().to_json())
    assert isinstance(load_tokenizer(tmp_path), ByteTokenizer)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not json", "not JSON"),
        ("[1]", "expected a JSON object"),
        ("{}", "expected a tokenizer"),
        ('{"type": "words"}', "expected a tokenizer"),
        ('{"type": "library"}', "expected a tokenizer"),
        ('{"model": {"type": "Unheard"}}', "not a tokenizer"),
    ],
)
def test_what_is_not_a_tokenizer_is_refused_in_one_line(tmp_path: Path, text: str, complaint: str):
    with pytest.raises(TokenizerError, match=complaint):
        tokenizer_from_json(text)
    file = tmp_path / "tokenizer.json"
    file.write_text(text)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: .*{complaint}") as caught:
        load_tokenizer(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["missing.json", "./missing", "/no/such/folder"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(spec: str):
    with pytest.raises(TokenizerError, match="no such file or folder"):
        build_tokenizer(spec, list)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: no such tokenizer file"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("spec", ["someone/some-model", "bite", "not a name"])
def test_a_model_that_the_hub_does_not_give_is_one_clear_line(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TokenizerError, match=f"tokenizer '{spec}' is neither byte.*Hugging Face hub: ") as caught:
        build_tokenizer(spec, list)
    assert "\n" not in str(caught.value)


def test_a_model_on_the_hub_is_read_with_its_eos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = hugging_face_folder(tmp_path / "snapshot", "<unk>", "</s>", "<stop>")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<stop>"}')
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert {"tokenizer.json", "tokenizer_config.json"} <= set(allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert build_tokenizer("someone/some-model", list).eos_id == 2
    assert asked == ["someone/some-model"]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"someone/some-model on the Hugging Face hub has no tokenizer\.json"):
        build_tokenizer("someone/some-model", list)
