"""Models of other libraries that do the same work per token: as many blocks of the same width as ours executes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from parallax.config.models.base import ModelConfig
from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.sections import OptimConfig

LossOf = Callable[[Tensor], Tensor]
"""Windows (B, T + 1) of token ids to the mean loss."""


def build_llama(config: DualTrackConfig) -> Any:
    """`transformers`' Llama with as many layers as ours executes blocks, of the same shape; fp32 weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    peer = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.executed_blocks,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        max_position_embeddings=config.max_seq_len,
        tie_word_embeddings=config.tie_embeddings,
        eos_token_id=None,
        bos_token_id=None,
    )
    return LlamaForCausalLM(peer)


def build_gpt2(config: ModelConfig) -> Any:
    """`transformers`' GPT-2 of the same shape, without dropout; fp32 weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    peer = GPT2Config(
        vocab_size=config.vocab_size,
        n_embd=config.hidden_size,
        n_inner=config.intermediate_size,
        n_layer=config.num_layers,
        n_head=config.num_heads,
        n_positions=config.max_seq_len,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=None,
        bos_token_id=None,
    )
    return GPT2LMHeadModel(peer)


def transformers_loss(model: Any, compiled: bool) -> LossOf:
    """The model's own loss; compiled as a whole, which is how its users compile it."""
    forward = torch.compile(model) if compiled else model

    def loss(windows: Tensor) -> Tensor:
        # Its labels are shifted inside, so the last token of a window is left out of both.
        output: Tensor = forward(input_ids=windows[:, :-1], labels=windows[:, :-1], use_cache=False).loss
        return output

    return loss


def build_litgpt(config: DualTrackConfig) -> nn.Module:
    """The GPT of litgpt of the same shape. Raises ImportError where it is not installed (`make bench` does it)."""
    from litgpt.config import Config
    from litgpt.model import GPT

    peer = Config(
        block_size=config.max_seq_len,
        vocab_size=config.vocab_size,
        padded_vocab_size=config.vocab_size,
        n_layer=config.executed_blocks,
        n_head=config.num_heads,
        n_query_groups=config.num_kv_heads,
        n_embd=config.hidden_size,
        intermediate_size=config.intermediate_size,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    model: nn.Module = GPT(peer)
    return model


def litgpt_loss(model: Any, compiled: bool) -> LossOf:
    """The peer's own chunked cross-entropy; compiled block by block, as ours is."""
    from litgpt.utils import chunked_cross_entropy

    if compiled:
        for block in model.transformer.h:
            block.compile()

    def loss(windows: Tensor) -> Tensor:
        output: Tensor = chunked_cross_entropy(model(windows[:, :-1]), windows[:, 1:])
        return output

    return loss


class PeerTrainer:
    """The training step that ours is compared with: autocast, backward, clipping, fused AdamW, fp32 weights."""

    def __init__(
        self, model: nn.Module, loss: LossOf, config: OptimConfig, autocast_dtype: torch.dtype | None
    ) -> None:
        self.model = model.train()
        self._loss = loss
        self._grad_clip = config.grad_clip
        self._autocast_dtype = autocast_dtype
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, windows: Tensor) -> float:
        """One update; the loss."""
        enabled = self._autocast_dtype is not None
        with torch.autocast(windows.device.type, self._autocast_dtype, enabled=enabled):
            loss = self._loss(windows)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self.model.parameters(), self._grad_clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.item()
