from dataclasses import dataclass

from parallax.config.model import DualTrackConfig


@dataclass(frozen=True)
class ParameterCounts:
    """How many numbers a model learns."""

    total: int
    """All parameters; a tied embedding counts once."""
    without_embeddings: int
    """Neither the token embedding nor the language head: what the tracks and the final norm hold."""
    per_track: int
    """One track's blocks."""


def parameter_counts(config: DualTrackConfig) -> ParameterCounts:
    """Closed form of the model's parameters, without building it.

    A block holds M = D (H + 2G) E + H E D + 3 D I in matrices (qkv; attention output; gate, up and down) and
    2 D in its norms. A track holds L (M + 2 D); the model K of them, the final norm D, the embedding V D and,
    unless tied, the head V D.
    """
    per_track = config.num_layers * (block_matrix_parameters(config) + 2 * config.hidden_size)
    without_embeddings = config.num_tracks * per_track + config.hidden_size
    vocabulary = config.vocab_size * config.hidden_size * (1 if config.tie_embeddings else 2)
    return ParameterCounts(without_embeddings + vocabulary, without_embeddings, per_track)


def block_matrix_parameters(config: DualTrackConfig) -> int:
    """M = D (H + 2G) E + H E D + 3 D I, the weights of one block's matrices."""
    width, head = config.hidden_size, config.head_dim
    qkv = (config.num_heads + 2 * config.num_kv_heads) * head * width
    output = width * config.num_heads * head
    return qkv + output + 3 * width * config.intermediate_size


def forward_flops_per_token(config: DualTrackConfig, seq_len: int) -> int:
    """Floating-point operations of one token's forward pass in a sequence of `seq_len` (T) tokens.

    K L R (2 M + 4 T H E) + 2 V D

    Every multiply-add is two operations. The K L blocks run R times with the same weights, so their matrices
    count R times; the head runs once, tied or not. Attention is counted as the full T x T square (2 T H E for
    the scores, 2 T H E for the values) without a discount for causality, as is usual when utilisation is
    stated. Norms, rotary positions, activations and the softmax are left out. Source: Chowdhery et al.,
    "PaLM", 2022, appendix B.
    """
    executed_blocks = config.num_tracks * config.num_layers * config.num_loops
    attention = 4 * seq_len * config.num_heads * config.head_dim
    head = 2 * config.vocab_size * config.hidden_size
    return executed_blocks * (2 * block_matrix_parameters(config) + attention) + head


def train_flops_per_token(config: DualTrackConfig, seq_len: int) -> int:
    """Operations to train on one token: 3 x forward, the backward being two products for each of the forward.

    These are model operations: what activation checkpointing computes a second time is not counted.
    """
    return 3 * forward_flops_per_token(config, seq_len)
