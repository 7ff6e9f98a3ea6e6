from dataclasses import dataclass
from typing import Literal

from parallax.config.models.base import ModelConfig, aligned_width
from parallax.config.models.gpt2 import DriftDiffusionConfig, RotatingHeadConfig
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

        weights      4 P, and under autocast + 2 K (L C + m), m in a track's matrices of the merges
        gradients    4 P
        optimizer    8 P
        activations  K L R block - 4 N D s (K - 1) merges + 8 N D s, with s the places that a token takes
        logits       chunk V (8 + a) + 4 V D

    where a block keeps, for each of its N s tokens, 8 D + a (2 D + (4 H + 3 G) E + 2 J) + 4 H: the fp32 residual
    stream entering each of its two norms; both norms' outputs, q, k and v, rotated q and k, attention's output
    before and after its transpose; gate and up, J being I as `GateUp` fills it up; attention's log-sums. What
    differs in GPT-2's family, `_head_widths` and `_beside_tokens` say. The K blocks that read one merged state
    keep it once. With activation checkpointing, a block keeps its input 4 D, and one block at a time is whole.
    8 D are the final norm's and the head's.

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
    copied = blocks * _copied_parameters(config) + config.num_tracks * config.merge_matrix
    copies = 0 if precision == "fp32" else narrow_bytes * copied
    tokens = micro_batch * config.max_seq_len
    chunk = min(chunk_tokens, tokens) * config.vocab_size * (2 * FP32_BYTES + narrow_bytes)
    return MemoryEstimate(
        weights_bytes=FP32_BYTES * parameters + copies,
        gradients_bytes=FP32_BYTES * parameters,
        optimizer_bytes=2 * FP32_BYTES * parameters,
        activations_bytes=_activation_bytes(config, micro_batch, narrow_bytes, activation_checkpointing),
        logits_bytes=chunk + FP32_BYTES * config.vocab_size * config.hidden_size,
    )


def _copied_parameters(config: ModelConfig) -> int:
    """C: all but the matrices that convert anew each time, `GatedDown`'s, and `GateUp`'s where it fills up."""
    if config.mlp != "swiglu":
        return block_matrix_parameters(config)
    one_side = config.hidden_size * config.intermediate_size
    fills_up = aligned_width(config.intermediate_size) > config.intermediate_size
    return block_matrix_parameters(config) - (3 if fills_up else 1) * one_side


def _activation_bytes(config: ModelConfig, micro_batch: int, narrow_bytes: int, checkpointing: bool) -> int:
    places = micro_batch * config.max_seq_len * config.training_slots
    stream = FP32_BYTES * config.hidden_size * places
    block = places * _block_bytes_per_place(config, narrow_bytes) + _beside_tokens(
        config, micro_batch, narrow_bytes
    )
    executed = config.executed_blocks
    blocks = executed * stream + block if checkpointing else executed * block
    merged = narrow_bytes * config.hidden_size * places * executed if config.merge_matrix else 0
    return blocks + merged - stream * (config.num_tracks - 1) * config.num_merges + 2 * stream


def _block_bytes_per_place(config: ModelConfig, narrow_bytes: int) -> int:
    inner = aligned_width(config.intermediate_size) if config.mlp == "swiglu" else config.intermediate_size
    narrow = 2 * config.hidden_size + _head_widths(config) * config.head_dim + 2 * inner
    rows = config.num_heads
    if config.has_directions:
        # Its correction c beside the log-sums; under autocast the norm's output is converted for directions again.
        rows *= 2
        narrow += config.hidden_size if narrow_bytes < FP32_BYTES else 0
    return 2 * FP32_BYTES * config.hidden_size + narrow_bytes * narrow + FP32_BYTES * rows


def _head_widths(config: ModelConfig) -> int:
    """Widths of a head that attention keeps of a place: q, k, v and its output; q and k once more where rotated.

    Its output once more, where it is laid out anew: beside rotated ones, or perturbed. Without either, attention
    answers in the layout of the projections. PLLA lays directions, queries and keys side by side.
    """
    if config.has_directions:
        asked = 2 * config.num_heads + config.num_kv_heads
        learns = isinstance(config, RotatingHeadConfig) and (config.frequencies == "LR" or config.use_norm)
        # Angles that are learned keep what they turn, which without directions is a view of the projections.
        return 3 * config.num_heads + 2 * config.num_kv_heads + (2 if learns else 1) * asked
    heads = 2 * config.num_heads + 2 * config.num_kv_heads
    if config.positions != "learned":
        return heads + 2 * config.num_heads + config.num_kv_heads
    return heads + (config.num_heads if isinstance(config, DriftDiffusionConfig) else 0)


def _beside_tokens(config: ModelConfig, micro_batch: int, narrow_bytes: int) -> int:
    """What a block keeps that only some variants of GPT-2 have.

    Rotating head: angles, their cosines and sines for q and k, of one row. Duo-predict: the mask of one row as
    numbers, which attention adds. Its strict form: norms of the embeddings asked besides, and the keys and values
    of all side by side.
    """
    length, width = config.max_seq_len, config.hidden_size
    total = 0
    if config.positions == "heads":
        asking = 2 if config.has_directions else 1
        turned = (asking * config.num_heads + config.num_kv_heads) * config.head_dim
        total += length * (narrow_bytes * turned + FP32_BYTES * width // 2)
    if config.training_slots > 1:
        total += narrow_bytes * config.training_slots * config.training_keys * length**2
    aside = config.training_keys - config.training_slots
    if aside:
        keys = 2 * config.num_kv_heads * config.head_dim
        total += narrow_bytes * micro_batch * length * (aside * width + config.training_keys * keys)
    return total
