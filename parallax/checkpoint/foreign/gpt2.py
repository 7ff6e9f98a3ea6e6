from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parallax.checkpoint.foreign.names import GPT2, StackedTensors, from_foreign
from parallax.checkpoint.foreign.stated import check_stated
from parallax.config.load import check_model_config
from parallax.config.models.base import ModelConfig
from parallax.config.models.gpt2 import Gpt2Config
from parallax.errors import CheckpointError

MODEL_TYPE = "gpt2"
_OURS = {
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "hidden_size": "n_embd",
    "vocab_size": "vocab_size",
    "max_seq_len": "n_positions",
}
"""Our key -> GPT-2's, where every folder states it."""
_FIXED = {
    "scale_attn_weights": (True, "attention here divides by the root of the head's width"),
    "scale_attn_by_inverse_layer_idx": (False, "attention here does not depend on the layer"),
    "add_cross_attention": (False, "there is no other sequence to attend to here"),
    "tie_word_embeddings": (True, "the embedding of a GPT-2 is its head here"),
    "quantization_config": (None, "quantised weights cannot be trained; dequantise and save them first"),
}
"""GPT-2's key -> the value that this model has, which is also what an absent key means, and why no other."""
_ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")
"""Two names of GELU's tanh form."""
_DEFAULT_EPS, _DEFAULT_DROPOUT = 1e-5, 0.1
"""What transformers takes where config.json says nothing."""
_PREFIX = "transformer."


def config_from_gpt2(raw: Mapping[str, Any], source: str | Path, **more: Any) -> ModelConfig:
    """The model that a GPT-2 `config.json` describes.

    `reorder_and_upcast_attn` is another order of the same computation, and dropout of attention weights exists in
    training only: neither is taken over.

    Args:
        raw: its content.
        source: where it comes from, for messages.
        more: further keys of ours, or other values.

    Raises:
        CheckpointError: it has what this model has not, or a key is missing.
        ConfigError: a value is out of range.
    """
    check_stated(raw, _FIXED, _OURS.values(), source, "GPT-2")
    if (activation := raw.get("activation_function", _ACTIVATIONS[0])) not in _ACTIVATIONS:
        raise CheckpointError(
            f"{source}: activation_function={activation!r}, and the feed-forward layer here has GELU's tanh form; "
            f"only {' or '.join(_ACTIVATIONS)} can be read"
        )
    keys = {"architecture": MODEL_TYPE, **{ours: raw[theirs] for ours, theirs in _OURS.items()}}
    if raw.get("n_inner") is not None:
        keys["intermediate_size"] = raw["n_inner"]
    return check_model_config(
        {
            **keys,
            "norm_eps": raw.get("layer_norm_epsilon", _DEFAULT_EPS),
            "dropout": raw.get("resid_pdrop", _DEFAULT_DROPOUT),
            **more,
        },
        str(source),
    )


def with_prefix(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """GPT-2's tensors as a model with a head names them, whichever way they were saved, and without that head.

    Raises:
        CheckpointError: the head differs from the embedding that it is tied to.
    """
    is_bare = not any(name.startswith(_PREFIX) for name in tensors)
    named = {
        name if name.startswith("lm_head.") or not is_bare else _PREFIX + name: tensor
        for name, tensor in tensors.items()
    }
    [head], [embedding] = GPT2.shared["head.weight"], GPT2.shared["embedding.weight"]
    if head in named and embedding in named and not torch.equal(named[head], named[embedding]):
        raise CheckpointError(
            f"{source}: {head} differs from {embedding}, and the embedding of a GPT-2 is its head here; a model "
            f"with a head of its own cannot be read"
        )
    return {name: tensor for name, tensor in named.items() if name != head}


def weights_from_gpt2(config: ModelConfig, tensors: Mapping[str, Tensor], source: str | Path) -> StackedTensors:
    """GPT-2's tensors by our names, matrices transposed: views, nothing is copied.

    Raises:
        CheckpointError: they do not fit the configuration, or the head differs from the embedding.
    """
    return from_foreign(GPT2, config, with_prefix(tensors, source), source)


def why_not_gpt2(config: ModelConfig) -> str | None:
    """What keeps a model from being a plain GPT-2, in words; None: it is one."""
    # Of its variants each is a class derived from it.
    return None if type(config) is Gpt2Config else f"model.architecture={config.architecture}"


def gpt2_config(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model for which `why_not_gpt2` is None; token ids and types come from the caller."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": MODEL_TYPE,
        **{theirs: getattr(config, ours) for ours, theirs in _OURS.items()},
        "n_inner": config.intermediate_size,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": _ACTIVATIONS[0],
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
    }
