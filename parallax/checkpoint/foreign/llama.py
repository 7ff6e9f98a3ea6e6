from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parallax.checkpoint.foreign.names import LLAMA, StackedTensors, from_foreign
from parallax.checkpoint.foreign.stated import check_stated
from parallax.config.load import check_model_config
from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError

MODEL_TYPE = "llama"
_OURS = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
}
"""Our key -> Llama's, where every folder states it."""
_FIXED = {
    "attention_bias": (False, "attention here has no bias"),
    "mlp_bias": (False, "the feed-forward layer here has no bias"),
    "hidden_act": ("silu", "the feed-forward layer here is a SwiGLU"),
    "quantization_config": (None, "quantised weights cannot be trained; dequantise and save them first"),
}
"""Llama's key -> the value that this model has, which is also what an absent key means, and why no other."""
_DEFAULT_EPS, _DEFAULT_THETA = 1e-6, 10_000.0
"""What transformers takes where config.json says nothing."""


def config_from_llama(raw: Mapping[str, Any], source: str | Path) -> ModelConfig:
    """The model that a Llama `config.json` describes: one track, one pass.

    Dropout of attention weights, which exists in training only, is not taken over.

    Raises:
        CheckpointError: it has what this model has not, or a key is missing.
        ConfigError: a value is out of range.
    """
    check_stated(raw, _FIXED, _OURS.values(), source, "Llama")
    _check_head_width(raw, source)
    sizes = {ours: raw[theirs] for ours, theirs in _OURS.items()}
    return check_model_config(
        {
            **sizes,
            "num_tracks": 1,
            "num_loops": 1,
            "use_swap": False,
            "num_kv_heads": raw.get("num_key_value_heads") or raw["num_attention_heads"],
            "norm_eps": raw.get("rms_norm_eps", _DEFAULT_EPS),
            "rope_theta": _rope_theta(raw, source),
            "tie_embeddings": raw.get("tie_word_embeddings", False),
        },
        str(source),
    )


def _check_head_width(raw: Mapping[str, Any], source: str | Path) -> None:
    head_dim, heads, width = raw.get("head_dim"), raw["num_attention_heads"], raw["hidden_size"]
    if head_dim is not None and head_dim * heads != width:
        raise CheckpointError(
            f"{source}: head_dim={head_dim}, and heads here are hidden_size / num_attention_heads = "
            f"{width}/{heads} wide; only models whose heads fill the width can be read"
        )


def _rope_theta(raw: Mapping[str, Any], source: str | Path) -> float:
    """The base, from where transformers 5 keeps it (`rope_parameters`) or from where earlier ones did."""
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        rope |= raw.get(key) or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise CheckpointError(
            f"{source}: rotary positions of the type {kind!r}, and here they are not rescaled; only models of "
            f"the type 'default' can be read"
        )
    return float(rope.get("rope_theta") or raw.get("rope_theta") or _DEFAULT_THETA)


def weights_from_llama(config: ModelConfig, tensors: Mapping[str, Tensor], source: str | Path) -> StackedTensors:
    """Llama's tensors by our names.

    Raises:
        CheckpointError: they do not fit the configuration, or the head differs from the embedding that the
            configuration ties it to.
    """
    [head] = LLAMA.shared["head.weight"]
    [embedding] = LLAMA.shared["embedding.weight"]
    if config.tie_embeddings and head in tensors and embedding in tensors:
        if not torch.equal(tensors[head], tensors[embedding]):
            raise CheckpointError(
                f"{source}: tie_word_embeddings is true, and {head} differs from {embedding}; set it to false "
                f"in a copy of the folder to read both"
            )
        tensors = {name: tensor for name, tensor in tensors.items() if name != head}
    return from_foreign(LLAMA, config, tensors, source)


def why_not_llama(config: ModelConfig) -> str | None:
    """What keeps a model from being a plain Llama, in words; None: it is one."""
    if (config.norm, config.mlp, config.positions) != ("rms", "swiglu", "rotary"):
        return f"model.architecture={config.architecture} is neither a plain GPT-2 nor a Llama"
    if config.num_tracks != 1 or config.num_loops != 1:
        return f"{config.num_tracks} track(s) in {config.num_loops} pass(es), and Llama has one in one"
    if config.output_norm_eps != config.norm_eps:
        return f"output_norm_eps={config.output_norm_eps} differs from norm_eps={config.norm_eps}"
    return None


def llama_config(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model for which `why_not_llama` is None; token ids and types come from the caller."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in _OURS.items()}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": MODEL_TYPE,
        **sizes,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        # The first is read by transformers 5, the second by those before it.
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
    }
