from typing import Literal, Self

from pydantic import Field, model_validator

from parallax.config.models.base import ModelConfig, nearest_divisor
from parallax.config.section import PositiveInt, derived


def default_intermediate_size(hidden_size: int) -> int:
    """8/3 of the width, rounded up to a multiple of 64: SwiGLU's three matrices cost what two of 4x would."""
    return -(-8 * hidden_size // (3 * 64)) * 64


class DualTrackConfig(ModelConfig):
    """K weight-independent decoder stacks, run `num_loops` times, swapping in between, summed at the end.

    K = 1 with one pass is an ordinary Llama-style decoder.
    """

    architecture: Literal["dual_track"] = "dual_track"
    """Name in the registry of models."""
    num_tracks: PositiveInt = 2
    """K, the number of independent stacks that read the same embedding."""
    num_kv_heads: int = derived(lambda data: data["num_heads"], gt=0)
    """G, the key and value heads; `num_heads` unless stated."""
    intermediate_size: int = derived(lambda data: default_intermediate_size(data["hidden_size"]), gt=0)
    """Width inside the SwiGLU; 8/3 of `hidden_size` rounded up to a multiple of 64 unless stated."""
    num_loops: PositiveInt = 2
    """R, the weight-tied passes of every track."""
    use_swap: bool = True
    """Between two passes, track k reads the output of track k-1 (mod K) instead of its own."""
    reinject: Literal[True, False, "auto"] = "auto"
    """Whether the embedding is added to what a track reads between passes; auto: with the swap only."""
    output_norm_eps: float = derived(lambda data: data["norm_eps"], gt=0)
    """Epsilon of the RMSNorm before the language head; `norm_eps` unless stated."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary position frequencies."""
    tie_embeddings: bool = False
    """One matrix for the token embedding and the language head."""

    @property
    def reinjects(self) -> bool:
        """`reinject` with `auto` resolved."""
        return self.use_swap if self.reinject == "auto" else self.reinject

    @property
    def num_swaps(self) -> int:
        """One before each further pass, with the swap."""
        return self.num_loops - 1 if self.use_swap else 0

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}; "
                f"nearest that does: {nearest_divisor(self.num_heads, self.num_kv_heads)}"
            )
        return self
