import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Engine

from parallax.errors import TokenizerError

VOCABULARY_FILE, MERGES_FILE, ADDED_FILE = "vocab.json", "merges.txt", "added_tokens.json"
_EOS = "<|endoftext|>"


def has_gpt2_files(path: Path) -> bool:
    """Whether a folder has the two files that GPT-2's tokenizer was published as."""
    return (path / VOCABULARY_FILE).is_file() and (path / MERGES_FILE).is_file()


def gpt2_definition(folder: Path) -> dict[str, Any]:
    """The `tokenizer.json` that GPT-2's two files stand for: byte-level BPE, with GPT-2's splitting of words.

    | file | content |
    |---|---|
    | vocab.json | token -> id |
    | merges.txt | after a line with the version, a pair to merge on each, the most frequent first |
    | added_tokens.json | token -> id, of those added later; need not be there |

    Raises:
        TokenizerError: a file is not what it should be.
    """
    try:
        vocabulary, merges = models.BPE.read_file(str(folder / VOCABULARY_FILE), str(folder / MERGES_FILE))
        engine = Engine(models.BPE(vocabulary, merges))
    except Exception as error:  # the library raises bare Exceptions
        raise TokenizerError(
            f"{folder}: {VOCABULARY_FILE} and {MERGES_FILE} are not those of a GPT-2 tokenizer: {error}"
        ) from None
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    added = _added(folder / ADDED_FILE)
    tokens = [_EOS] if _EOS in vocabulary else []
    tokens += sorted(added, key=added.__getitem__)
    engine.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    for token, index in added.items():
        if engine.token_to_id(token) != index:
            raise TokenizerError(
                f"{folder / ADDED_FILE}: {token!r} is id {index}, and after {VOCABULARY_FILE} it would be "
                f"{engine.token_to_id(token)}; ids have to follow each other"
            )
    definition: dict[str, Any] = json.loads(engine.to_str())
    return definition


def _added(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise TokenizerError(f"{file}: not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(index, int) for index in content.values()):
        raise TokenizerError(f"{file}: expected an object of token to id")
    return content
