import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallax.data.byte_definition import is_byte_definition
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.gpt2_files import gpt2_definition, has_gpt2_files
from parallax.data.library_tokenizer import LibraryTokenizer
from parallax.data.tokenizer import Tokenizer
from parallax.errors import TokenizerError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_EOS_FILES = (CONFIG_FILE, "special_tokens_map.json")


def tokenizer_from_json(text: str) -> Tokenizer:
    """Reads back what `Tokenizer.to_json` wrote, or the text of a Hugging Face `tokenizer.json`.

    Raises:
        TokenizerError: neither of the two.
    """
    return _from_definition(_parse(text), eos=None)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads `tokenizer.json`, given itself or the folder (corpus, checkpoint, Hugging Face model) it lies in.

    A Hugging Face file does not say which token ends a document: `tokenizer_config.json` and
    `special_tokens_map.json` beside it are asked for `eos_token`, then the customary names are tried. In a folder
    without one, GPT-2's `vocab.json` and `merges.txt` are read.

    Raises:
        TokenizerError: there is no such file, or it is not a tokenizer, or it has no EOS.
    """
    path = Path(path)
    file = path / TOKENIZER_FILE if path.is_dir() else path
    try:
        if not file.is_file() and has_gpt2_files(path):
            return _from_definition(gpt2_definition(path), eos=_configured_eos(path))
        definition = _parse(file.read_text(encoding="utf-8"))
        return _from_definition(definition, eos=_configured_eos(file.parent))
    except FileNotFoundError:
        raise TokenizerError(f"{file}: no such tokenizer file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{file}: cannot be read: {error}") from None
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from None


def has_tokenizer(folder: Path) -> bool:
    """Whether `load_tokenizer` finds the files of a tokenizer there."""
    return (folder / TOKENIZER_FILE).is_file() or has_gpt2_files(folder)


def load_hub_tokenizer(name: str) -> Tokenizer:
    """Fetches a model's `tokenizer.json` from the Hugging Face hub, or from the hub's cache when offline.

    `Tokenizer.from_pretrained` of the library fetches the one file only; the configuration beside it is
    needed to know which token ends a document.

    Raises:
        TokenizerError: the hub cannot be reached, or has no such model, or the model has no tokenizer.json.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        folder = Path(snapshot_download(name, allow_patterns=[TOKENIZER_FILE, *_EOS_FILES]))
    except (OSError, ValueError, EntryNotFoundError, HfHubHTTPError) as error:
        reason = str(error).partition("\n")[0]
        raise TokenizerError(
            f"tokenizer {name!r} is neither byte, char, bpe:SIZE nor a file here, and could not be had from "
            f"the Hugging Face hub: {reason}"
        ) from None
    if not (folder / TOKENIZER_FILE).is_file():
        raise TokenizerError(
            f"{name} on the Hugging Face hub has no {TOKENIZER_FILE}; choose a model that has one"
        )
    return load_tokenizer(folder)


def _parse(text: str) -> dict[str, Any]:
    try:
        definition = json.loads(text)
    except ValueError as error:
        raise TokenizerError(f"not JSON: {error}") from None
    if not isinstance(definition, dict):
        raise TokenizerError(f"expected a JSON object, found {type(definition).__name__}")
    return definition


def _from_definition(definition: Mapping[str, Any], eos: str | None) -> Tokenizer:
    kind = definition.get("type")
    if kind == "byte":
        return ByteTokenizer()
    if kind == "library" and {"tokenizer", "eos"} <= definition.keys():
        return LibraryTokenizer(definition["tokenizer"], definition["eos"])
    if isinstance(inner := definition.get("definition"), dict):  # the notes beside a .bin file
        return _from_definition(inner, eos=None)
    if is_byte_definition(definition):
        return ByteTokenizer()
    if "model" in definition:
        return LibraryTokenizer(definition, eos)
    raise TokenizerError("expected a tokenizer written by parallax, or a Hugging Face tokenizer.json with a model")


def _configured_eos(folder: Path) -> str | None:
    for name in _EOS_FILES:
        file = folder / name
        if not file.is_file():
            continue
        token = _parse(file.read_text(encoding="utf-8")).get("eos_token")
        # The token is written as text, or as an object that also says how it is matched.
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            return content
    return None
