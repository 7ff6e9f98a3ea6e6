import json
from collections.abc import Mapping
from typing import Any

from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import CONFIG_FILE, TOKENIZER_FILE

_UNKNOWN = "<unk>"


def transformers_texts(tokenizer: Tokenizer, max_seq_len: int) -> dict[str, str]:
    """A tokenizer as the files that transformers' `PreTrainedTokenizerFast` reads, by file name.

    `load_tokenizer` makes a tokenizer of the same fingerprint of them. The byte tokenizer, which the
    `tokenizers` library has not, is written in our own form, which transformers does not read.

    Args:
        tokenizer: any.
        max_seq_len: the model's window, in tokens.
    """
    definition: dict[str, Any] = json.loads(tokenizer.to_json())
    if definition["type"] != "library":
        return {TOKENIZER_FILE: tokenizer.to_json()}
    engine: Mapping[str, Any] = definition["tokenizer"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": definition["eos"],
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
    }
    if engine["model"].get("unk_token") == _UNKNOWN:
        settings["unk_token"] = _UNKNOWN
    return {TOKENIZER_FILE: json.dumps(engine), CONFIG_FILE: json.dumps(settings, indent=2) + "\n"}
