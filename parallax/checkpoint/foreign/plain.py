from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parallax.checkpoint.foreign import gpt2, llama
from parallax.checkpoint.foreign.names import GPT2, LLAMA, NameTable
from parallax.config.models.base import ModelConfig


@dataclass(frozen=True)
class PlainFormat:
    """A model of transformers that says all there is to say about some of ours: no code goes with it."""

    model_type: str
    """In config.json."""
    names: NameTable
    """Of its tensors."""
    why_not: Callable[[ModelConfig], str | None]
    """What keeps a model from being one, in words."""
    describe: Callable[[ModelConfig], dict[str, Any]]
    """Its config.json."""


_FORMATS = (
    PlainFormat(gpt2.MODEL_TYPE, GPT2, gpt2.why_not_gpt2, gpt2.gpt2_config),
    PlainFormat(llama.MODEL_TYPE, LLAMA, llama.why_not_llama, llama.llama_config),
)


def plain_format(config: ModelConfig) -> tuple[PlainFormat | None, str | None]:
    """The format that a model fits, or None and what keeps it from fitting the last that was tried."""
    if config.attention != "softmax":
        return None, f"model.attention={config.attention}, and a plain GPT-2 or Llama has softmax attention"
    obstacle = None
    for form in _FORMATS:
        obstacle = form.why_not(config)
        if obstacle is None:
            return form, None
    return None, obstacle
