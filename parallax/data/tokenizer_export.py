import json
from collections.abc import Mapping
from typing import Any

from parallax.data.byte_definition import BYTE_EOS, byte_definition
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import CONFIG_FILE, TOKENIZER_FILE
from parallax.errors import TokenizerError

_UNKNOWN = "<unk>"


def transformers_texts(tokenizer: Tokenizer, max_seq_len: int) -> dict[str, str]:
    """A tokenizer as the files that transformers' `PreTrainedTokenizerFast` reads, by file name.

    `load_tokenizer` makes a tokenizer of the same fingerprint of them. Padding, which a batch needs, is the
    end-of-document token, on the left. The bytes of a text never become a special token, as in Parallax; other
    tokenizers read one that is spelled out in the text as that token, as transformers' users expect.

    Args:
        tokenizer: any.
        max_seq_len: the model's window, in tokens.

    Raises:
        TokenizerError: a kind that the `tokenizers` library cannot express.
    """
    definition: dict[str, Any] = json.loads(tokenizer.to_json())
    if definition["type"] == "byte":
        engine: Mapping[str, Any] = byte_definition()
        eos, more = BYTE_EOS, {"split_special_tokens": True}
    elif definition["type"] == "library":
        engine, eos, more = definition["tokenizer"], definition["eos"], {}
    else:
        raise TokenizerError(
            f"a tokenizer of the kind {definition['type']!r} cannot be written for transformers; "
            "byte, char, bpe:SIZE and those of the tokenizers library can"
        )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "pad_token": eos,
        "padding_side": "left",
        "model_max_length": max_seq_len,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **more,
    }
    if engine["model"].get("unk_token") == _UNKNOWN:
        settings["unk_token"] = _UNKNOWN
    return {TOKENIZER_FILE: json.dumps(engine), CONFIG_FILE: json.dumps(settings, indent=2) + "\n"}
