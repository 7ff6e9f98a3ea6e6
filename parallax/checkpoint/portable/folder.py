import json
from collections.abc import Mapping
from typing import Any

from parallax.attention.select import OPERATORS
from parallax.checkpoint.portable.assemble import Assembly
from parallax.checkpoint.portable.facts import Facts
from parallax.checkpoint.portable.module import Symbol
from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError
from parallax.model.registry import ARCHITECTURES

MODELING_FILE = "modeling_parallax.py"
GENERATION_FILE = "generation_config.json"
_ROOT = "parallax.checkpoint.portable.modeling"
_BACKENDS = ("sdpa", "eager")
"""Backends that run wherever PyTorch does, the faster one first."""


def portable_source(config: ModelConfig, origin: str) -> str:
    """The text of `modeling_parallax.py`: the model of a configuration behind transformers' interface.

    It is put together from the sources of the classes that the model is built from (`Assembly`), so it computes
    what they compute, and it imports torch and transformers and nothing else.

    Args:
        config: of the model.
        origin: which version of Parallax makes it.

    Raises:
        CheckpointError: the model draws noise whenever it is read, see `why_not_portable`.
    """
    if (obstacle := why_not_portable(config)) is not None:
        raise CheckpointError(obstacle)
    architecture = ARCHITECTURES[config.architecture]
    backend = next(b for name in _BACKENDS for b in OPERATORS[config.attention] if b.name == name)
    assembly = Assembly(
        _ROOT,
        {
            "Architecture": _symbol(architecture),
            "ArchitectureConfig": _symbol(type(config)),
            "PortableAttention": _symbol(type(backend)),
        },
        Facts.of(type(config), architecture),
    )
    return f"{_header(origin)}\n\n{assembly.text()}"


def why_not_portable(config: ModelConfig) -> str | None:
    """What keeps a model from being exported with code, and the way out; None: nothing."""
    if config.is_noisy_at_eval:
        return (
            "model.diffusion_at_eval=true: the file for transformers draws no noise, so it would compute another "
            "model; export without --format transformers, or set it to false to export the mean that it scatters "
            "around"
        )
    return None


def portable_config(config: ModelConfig) -> dict[str, Any]:
    """The keys of config.json that transformers and lm-eval look for, beside our `model` section."""
    name = MODELING_FILE.removesuffix(".py")
    return {
        "architectures": ["ParallaxForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{name}.ParallaxConfig",
            "AutoModelForCausalLM": f"{name}.ParallaxForCausalLM",
        },
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.executed_blocks,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_seq_len,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
    }


def generation_text(eos_id: int | None) -> str:
    """`generation_config.json`: a document starts after the token that ended the one before it."""
    settings: Mapping[str, int | None] = {"bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": eos_id}
    return json.dumps({key: value for key, value in settings.items() if value is not None}, indent=2) + "\n"


def _symbol(thing: Any) -> Symbol:
    return Symbol(thing.__module__, thing.__qualname__)


def _header(origin: str) -> str:
    return f'''"""The model of this folder for transformers; torch and transformers are all that it needs.

Written by {origin}
with `parallax export --format transformers`, out of the sources that are named below, without what only training
needs. Change it there, not here.

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
"""'''
