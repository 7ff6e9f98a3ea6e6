from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parallax.checkpoint.foreign.names import ORIGINAL, StackedTensors, from_foreign
from parallax.checkpoint.foreign.original_config import ROPE_THETA, config_from_original, find_original_config
from parallax.checkpoint.foreign.pickled import load_plain
from parallax.checkpoint.tensor_file import load_tensors
from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError

_NESTED = ("model", "model_state_dict", "state_dict")
"""Where a file that holds more than weights keeps them."""
_COMPILED = "_orig_mod."
"""What torch.compile puts before every name of the model that it wraps."""
_POSITIONS_CHECKED = 64
_BUFFER_TOLERANCE = 0.01
"""Tables may have been saved in bf16; another rotary base is off by far more."""


def read_original(path: Path, config_file: Path | None = None) -> tuple[ModelConfig, StackedTensors]:
    """A model of the original dual-track implementation.

    Args:
        path: its weights, `.safetensors` or a file of torch.save, from which no code is run.
        config_file: its configuration; looked for beside the weights if None (see `find_original_config`).

    Raises:
        CheckpointError: unreadable, not of that layout, or with what this model has not.
        ConfigError: a value of the configuration is out of range.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the file of weights in it, or give --format transformers")
    tensors = _read_tensors(path)
    raw, source = find_original_config(path, config_file)
    tied, tensors = _without_tied_head(tensors)
    config = config_from_original(raw, source, tied=tied)
    _check_rotary_base(config, tensors, path)
    return config, from_foreign(ORIGINAL, config, tensors, path)


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected weights, .safetensors or .pt")
    content: Any = load_tensors(path) if path.suffix == ".safetensors" else load_plain(path)
    for inner in (content, *(content.get(key) for key in _NESTED)) if isinstance(content, dict) else ():
        if isinstance(inner, dict) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            return {str(name).removeprefix(_COMPILED): tensor for name, tensor in inner.items()}
    raise CheckpointError(
        f"{path} holds no weights; expected a dictionary of tensors, or one under {', '.join(_NESTED)}"
    )


def _without_tied_head(tensors: Mapping[str, Tensor]) -> tuple[bool, Mapping[str, Tensor]]:
    """Whether the head is the embedding, and the tensors without it if so."""
    [head_name] = ORIGINAL.shared["head.weight"]
    [embedding_name] = ORIGINAL.shared["embedding.weight"]
    head, embedding = tensors.get(head_name), tensors.get(embedding_name)
    if head is not None and (embedding is None or not torch.equal(head, embedding)):
        return False, tensors
    return True, {name: tensor for name, tensor in tensors.items() if name != head_name}


def _check_rotary_base(config: ModelConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """The base stands in no configuration; where the tables were saved, they show it.

    Raises:
        CheckpointError: the cosines are those of another base.
    """
    names = [name for name in tensors if name.rpartition(".")[2] == "freqs_cos"]
    half = config.head_dim // 2
    frequencies = ROPE_THETA ** -(torch.arange(half) / half)
    for name in names:
        table = tensors[name].squeeze()
        if table.dim() != 2 or table.shape[0] < 2 or table.shape[1] < half:
            raise CheckpointError(f"{path}: {name} is {tuple(table.shape)}, not positions x {half} frequencies")
        first = table[:_POSITIONS_CHECKED, :half].float()
        if (first - torch.outer(torch.arange(len(first)), frequencies).cos()).abs().max() > _BUFFER_TOLERANCE:
            raise CheckpointError(
                f"{path}: {name} holds the cosines of another rotary base than the original's {ROPE_THETA:,.0f}; "
                f"the model would compute something else here"
            )
