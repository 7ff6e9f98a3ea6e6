from dataclasses import dataclass
from typing import Literal

from parallax.config.models.base import ModelConfig, aligned_width
from parallax.metrics.flops import block_matrix_parameters, parameter_counts

FP32_BYTES = 4


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step needs on one device, by what they hold."""

    weights_bytes: int
    """fp32 master weights and, under autocast, the half-precision copies of the blocks' matrices."""
    gradients_bytes: int
    """fp32 gradients."""
    optimizer_bytes: int
    """AdamW's two fp32 moments."""
    activations_bytes: int
    """What the forward keeps for the backward."""
    logits_bytes: int
    """The head: one chunk of logits and their gradient, and the weight gradient made in the same sweep."""

    @property
    def total_bytes(self) -> int:
        """The sum: an upper bound, since not every part is at its peak at the same moment."""
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.logits_bytes
        )


def memory_estimate(
    config: ModelConfig,
    micro_batch: int,
    precision: Literal["fp32", "bf16", "fp16"],
    activation_checkpointing: bool,
    chunk_tokens: int = 1024,
) -> MemoryEstimate:
    """Estimates a training step's memory on sequences of `max_seq_len` (T), with N = micro_batch x T tokens.

    With P parameters, C of a block's weights kept converted, and a bytes an activation (4 in fp32, else 2):

        weights      4 P, and under autocast + 2 K L C
        gradients    4 P
        optimizer    8 P
        activations  N s K L R block + 8 N D, with s the places that a token takes
        logits       chunk V (8 + a) + 4 V D

    where a block keeps, per token, block = 8 D + a (2 D + (4 H + 3 G) E + 2 J) + 4 H: the fp32 residual
    stream entering each of its two norms; both norms' outputs, q, k and v, rotated q and k, attention's
    output before and after its transpose; gate and up, J being I as `GateUp` fills it up; attention's
    log-sums. GPT-2's keeps no rotated q and k, and what enters and leaves its GELU instead of gate and up.
    With activation checkpointing, it keeps its input 4 D, and one block at a time is whole. 8 D are the
    final norm's and the head's.

    The activations are those that autograd keeps, to 2 % (`tests/metrics/test_footprint.py`); attention is
    counted with a fused backend, others keep T x T probabilities as well.
    Left out: dropout masks, what the allocator holds beyond the tensors (on the CPU up to half as much
    again), and the device's own context (0.3-0.5 GB on CUDA).

    Args:
        config: the model.
        micro_batch: sequences in one forward.
        precision: the resolved `train.precision`.
        activation_checkpointing: whether blocks are recomputed in the backward.
        chunk_tokens: `loss.chunk_tokens`, the tokens whose logits exist at one time.
    """
    narrow_bytes = FP32_BYTES if precision == "fp32" else 2
    parameters = parameter_counts(config).total
    blocks = config.num_tracks * config.layers_per_track
    copies = 0 if precision == "fp32" else narrow_bytes * blocks * _copied_parameters(config)
    tokens = micro_batch * config.max_seq_len
    chunk = min(chunk_tokens, tokens) * config.vocab_size * (2 * FP32_BYTES + narrow_bytes)
    return MemoryEstimate(
        weights_bytes=FP32_BYTES * parameters + copies,
        gradients_bytes=FP32_BYTES * parameters,
        optimizer_bytes=2 * FP32_BYTES * parameters,
        activations_bytes=tokens * _activation_bytes_per_token(config, narrow_bytes, activation_checkpointing),
        logits_bytes=chunk + FP32_BYTES * config.vocab_size * config.hidden_size,
    )


def _copied_parameters(config: ModelConfig) -> int:
    """C: all but the matrices that convert anew each time, `GatedDown`'s, and `GateUp`'s where it fills up."""
    if config.mlp != "swiglu":
        return block_matrix_parameters(config)
    one_side = config.hidden_size * config.intermediate_size
    fills_up = aligned_width(config.intermediate_size) > config.intermediate_size
    return block_matrix_parameters(config) - (3 if fills_up else 1) * one_side


def _activation_bytes_per_token(config: ModelConfig, narrow_bytes: int, checkpointing: bool) -> int:
    executed_blocks = config.executed_blocks
    block = _block_bytes_per_token(config, narrow_bytes)
    stream = FP32_BYTES * config.hidden_size * config.training_slots
    blocks = executed_blocks * stream + block if checkpointing else executed_blocks * block
    return blocks + 2 * stream


def _block_bytes_per_token(config: ModelConfig, narrow_bytes: int) -> int:
    stream = 2 * FP32_BYTES * config.hidden_size
    heads = 4 * config.num_heads + 3 * config.num_kv_heads
    if config.positions == "learned":
        heads -= config.num_heads + config.num_kv_heads
    inner = aligned_width(config.intermediate_size) if config.mlp == "swiglu" else config.intermediate_size
    narrow = narrow_bytes * (2 * config.hidden_size + heads * config.head_dim + 2 * inner)
    return config.training_slots * (stream + narrow + FP32_BYTES * config.num_heads)
