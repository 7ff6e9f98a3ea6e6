import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

import parallax
from parallax.checkpoint.folder_tensors import WEIGHTS_FILE, read_folder_tensors
from parallax.checkpoint.foreign import gpt2, gpt2_variants, llama
from parallax.checkpoint.foreign.names import to_foreign
from parallax.checkpoint.foreign.plain import PlainFormat
from parallax.checkpoint.json_file import read_json
from parallax.checkpoint.write import write_files
from parallax.config.load import check_model_config, dump_model_config
from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError, ConfigError
from parallax.runtime.files import staged_directory

FOLDER_CONFIG_FILE = "config.json"
RUN_CONFIG_FILE = "config.yaml"
MODEL_TYPE = "parallax"
_SAVED_PREFIX = "model."
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Texts that go with a model from folder to folder as they are."""


def is_model_folder(path: Path) -> bool:
    """Whether `path` is a folder that describes a model the way Hugging Face's do, with a config.json."""
    return (path / FOLDER_CONFIG_FILE).is_file()


def read_model_folder(path: Path) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """A model folder's configuration and its weights by our names, mapped rather than read.

    | `model_type` in config.json | content |
    |---|---|
    | parallax | our model section, our names |
    | llama | `LlamaForCausalLM` of transformers: one track, one pass |
    | gpt2 | `GPT2LMHeadModel` of transformers |
    | those of `gpt2_variants.READERS` | GPT-2's published variants, in their own naming |

    Raises:
        CheckpointError: not such a folder, or a model that cannot be built here, with the value that keeps it.
    """
    source = path / FOLDER_CONFIG_FILE
    raw = _read_config(source)
    kind = raw.get("model_type")
    try:
        if kind == MODEL_TYPE:
            return check_model_config(raw.get("model"), str(source)), _by_our_names(read_folder_tensors(path))
        if kind == llama.MODEL_TYPE:
            config = llama.config_from_llama(raw, source)
            return config, llama.weights_from_llama(config, read_folder_tensors(path), path)
        if kind == gpt2.MODEL_TYPE:
            config = gpt2.config_from_gpt2(raw, source)
            return config, gpt2.weights_from_gpt2(config, read_folder_tensors(path), path)
        if kind in gpt2_variants.READERS:
            return gpt2_variants.read_variant(raw, read_folder_tensors(path), path)
    except ConfigError as error:
        raise CheckpointError(f"{error}; this version of Parallax cannot build that model") from None
    raise CheckpointError(
        f"{source}: model_type={kind!r}; expected "
        f"{', '.join((MODEL_TYPE, llama.MODEL_TYPE, gpt2.MODEL_TYPE, *gpt2_variants.READERS))}: other models have "
        f"other layers"
    )


def read_texts(path: Path) -> dict[str, str]:
    """A model folder's tokenizer and what goes with it, by file name.

    Raises:
        CheckpointError: a file is not UTF-8 text.
    """
    try:
        return {name: (path / name).read_bytes().decode() for name in TOKENIZER_FILES if (path / name).is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: a tokenizer file cannot be read: {error}") from None


def write_model_folder(
    output: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    texts: Mapping[str, str],
    *,
    step: int = 0,
    dtype: torch.dtype | None = None,
    eos_id: int | None = None,
    plain: PlainFormat | None = None,
    config_keys: Mapping[str, Any] = MappingProxyType({}),
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes a model folder, all of it or nothing.

    | file | content |
    |---|---|
    | config.json | what `read_model_folder` and transformers read |
    | config.yaml | the model section alone: a run that goes on from here can begin with it |
    | model.safetensors | the weights, tied ones once |
    | the texts | the tokenizer |
    | manifest.json | size and SHA-256 of each |

    Args:
        output: does not exist.
        config: of the model.
        weights: by our names.
        texts: file name -> content, of `TOKENIZER_FILES` and what else belongs to the model.
        step: optimizer steps that the weights have seen here.
        dtype: of the weights; None: as they are.
        eos_id: the token that ends a document, for config.json.
        plain: write a model of transformers that needs no code; see `plain_format`.
        config_keys: stand in config.json besides.
        notes: file name -> content, of what people may change: the manifest does not list it.

    Raises:
        CheckpointError: `output` exists; nothing was overwritten.
        DiskFullError: there was no room.
    """
    if output.exists():
        raise _exists(output)
    stored = {name: weights[name] for name in weights if not (config.tie_embeddings and name == "head.weight")}
    if plain is not None:
        stored = to_foreign(plain.names, config, stored)
    if dtype is not None:
        stored = {name: tensor.to(dtype) for name, tensor in stored.items()}
    described = _parallax_config(config) if plain is None else plain.describe(config)
    described |= {"bos_token_id": None, "eos_token_id": eos_id, "dtype": _dtype_name(stored), **config_keys}
    all_texts = {
        FOLDER_CONFIG_FILE: json.dumps(described, indent=2) + "\n",
        RUN_CONFIG_FILE: dump_model_config(config),
        **texts,
    }
    try:
        with staged_directory(output) as staging:
            write_files(staging, step, {WEIGHTS_FILE: stored}, all_texts, notes)
    except FileExistsError:
        raise _exists(output) from None


def _by_our_names(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without the prefix under which transformers' `save_pretrained` writes what it has read of such a folder."""
    if not all(name.startswith(_SAVED_PREFIX) for name in tensors):
        return tensors
    return {name.removeprefix(_SAVED_PREFIX): tensor for name, tensor in tensors.items()}


def _exists(output: Path) -> CheckpointError:
    return CheckpointError(
        f"{output} exists; nothing was overwritten: choose another --output, or remove it first"
    )


def _parallax_config(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": MODEL_TYPE,
        "parallax_version": parallax.__version__,
        "vocab_size": config.vocab_size,
        "model": config.model_dump(mode="json"),
    }


def _dtype_name(tensors: Mapping[str, Tensor]) -> str:
    """Of the widest weight, as transformers writes it: float32, bfloat16, …"""
    widest = max(tensors.values(), key=lambda tensor: tensor.dtype.itemsize)
    return str(widest.dtype).removeprefix("torch.")


def _read_config(path: Path) -> dict[str, Any]:
    content = read_json(path, "a folder with a config.json and weights")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
