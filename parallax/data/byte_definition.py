from collections.abc import Mapping
from typing import Any

from parallax.data.byte_tokenizer import NUM_BYTES

BYTE_EOS = "<|endoftext|>"
_SHOWN = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
"""Bytes that GPT-2's table shows as the character of the same number."""


def byte_definition() -> dict[str, Any]:
    """The byte tokenizer as a `tokenizer.json`: a byte-level BPE of the 256 bytes without a single merge.

    It gives the same ids as `ByteTokenizer`, except that text which spells out the end-of-document token may be
    read as that token: whoever reads the file decides (`split_special_tokens`).
    """
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": NUM_BYTES,
                "content": BYTE_EOS,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(_characters())},
            "merges": [],
        },
    }


def is_byte_definition(definition: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` gives the byte tokenizer's ids, whoever wrote the rest of it."""
    model, added = definition.get("model"), definition.get("added_tokens")
    if not isinstance(model, dict) or not isinstance(added, list) or definition.get("normalizer") is not None:
        return False
    splits = definition.get("pre_tokenizer") or {}
    return (
        model.get("vocab") == byte_definition()["model"]["vocab"]
        and model.get("merges") == []
        and (splits.get("type"), splits.get("use_regex"), splits.get("add_prefix_space"))
        == ("ByteLevel", False, False)
        and [(token.get("id"), token.get("content")) for token in added] == [(NUM_BYTES, BYTE_EOS)]
    )


def _characters() -> list[str]:
    """GPT-2's character for each byte: its own where that can be seen, else the next one from 256 on."""
    hidden = iter(range(NUM_BYTES, 2 * NUM_BYTES))
    shown = {byte for part in _SHOWN for byte in part}
    return [chr(byte if byte in shown else next(hidden)) for byte in range(NUM_BYTES)]
