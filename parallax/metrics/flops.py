from dataclasses import dataclass

from parallax.config.models.base import ModelConfig


@dataclass(frozen=True)
class ParameterCounts:
    """How many numbers a model learns."""

    total: int
    """All parameters; a tied embedding counts once."""
    without_embeddings: int
    """Neither the token embedding nor the language head: what tracks, norms and positions hold."""
    per_track: int
    """One track's blocks, and what it enters merges with."""


def parameter_counts(config: ModelConfig) -> ParameterCounts:
    """Closed form of the model's parameters, without building it.

    A block holds M in matrices and v in vectors; a track L (M + v) and its matrices of the merges; the model K of
    them, what is shared outside (the last norm and, where they are learned, positions), the embedding V D and,
    unless tied, the head V D.
    """
    per_block = block_matrix_parameters(config) + config.block_vectors
    per_track = config.layers_per_track * per_block + config.merge_matrix
    without_embeddings = config.num_tracks * per_track + config.shared_vectors
    vocabulary = config.vocab_size * config.hidden_size * (1 if config.tie_embeddings else 2)
    return ParameterCounts(without_embeddings + vocabulary, without_embeddings, per_track)


def block_matrix_parameters(config: ModelConfig) -> int:
    """M = D (H + 2G) E + H E D + m D I, the weights of one block's matrices; m: 3 of a SwiGLU, 2 around a GELU.

    PLLA has D H E more, for its directions.
    """
    width, head = config.hidden_size, config.head_dim
    asking = 2 if config.has_directions else 1
    qkv = (asking * config.num_heads + 2 * config.num_kv_heads) * head * width
    output = width * config.num_heads * head
    return qkv + output + mlp_matrices(config) * width * config.intermediate_size


def mlp_matrices(config: ModelConfig) -> int:
    """Matrices of an MLP, all of size D x I."""
    return 3 if config.mlp == "swiglu" else 2


def forward_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Floating-point operations of one token's forward pass in a sequence of `seq_len` (T) tokens.

    K L R (2 M + 4 T H E) + 2 K m + 2 V D, with m a track's matrices of the merges; PLLA: 6 T H E

    Every multiply-add is two operations. The K L blocks run R times with the same weights, so their matrices
    count R times; the head runs once, tied or not. Attention is counted as the full T x T square (2 T H E for
    the scores, 2 T H E for the values) without a discount for causality, as is usual when utilisation is
    stated. Norms, positions, biases, noise, activations and the softmax are left out. Source: Chowdhery et al.,
    "PaLM", 2022, appendix B.
    """
    return _forward_flops(config, seq_len, slots=1, keys=1)


def train_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Operations to train on one token: 3 x forward, the backward being two products for each of the forward.

    A token that takes s places in training costs s times as much, and its attention runs over sequences as many
    times as long as it gives keys.
    These are model operations: what activation checkpointing computes a second time is not counted.
    """
    return 3 * _forward_flops(config, seq_len, config.training_slots, config.training_keys)


def _forward_flops(config: ModelConfig, seq_len: int, slots: int, keys: int) -> int:
    products = 3 if config.has_directions else 2
    attention = products * 2 * keys * seq_len * config.num_heads * config.head_dim
    block = slots * (2 * block_matrix_parameters(config) + attention)
    block += (keys - slots) * 2 * config.hidden_size * 2 * config.num_kv_heads * config.head_dim
    merges = 2 * config.num_tracks * config.merge_matrix
    head = 2 * config.vocab_size * config.hidden_size
    return config.executed_blocks * block + slots * (merges + head)
