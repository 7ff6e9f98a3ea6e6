from dataclasses import dataclass

from parallax.config.models.base import ModelConfig
from parallax.metrics.flops import parameter_counts, train_flops_per_token

CACHE_NUMBER_BYTES = 2
"""Keys and values in half precision, as models are served."""


@dataclass(frozen=True)
class Costs:
    """What a model costs, by the counters that runs are logged with."""

    parameters: int
    """All of them; a tied embedding counts once."""
    flops: int
    """Training FLOPs a token, in windows of `max_seq_len`."""
    kv_bytes: int
    """Bytes of the KV cache a token."""


def costs_of(config: ModelConfig) -> Costs:
    """The costs of a model, without building it.

    The cache holds, for each of the K R L executed blocks, G keys and G values of width E: 2 K R L G E numbers.
    """
    numbers = 2 * config.executed_blocks * config.num_kv_heads * config.head_dim
    return Costs(
        parameter_counts(config).total,
        train_flops_per_token(config, config.max_seq_len),
        CACHE_NUMBER_BYTES * numbers,
    )
