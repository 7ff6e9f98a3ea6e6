from typing import Literal, Self

from pydantic import Field, model_validator

from parallax.config.section import Fraction, PositiveInt, Section, derived

_ALIGNMENT = 16


def default_intermediate_size(hidden_size: int) -> int:
    """8/3 of the width, rounded up to a multiple of 64: SwiGLU's three matrices cost what two of 4x would."""
    return -(-8 * hidden_size // (3 * 64)) * 64


def aligned_width(width: int) -> int:
    """The next multiple of 16: matrix products of such widths run at full rate, of others at about 0.6 of it."""
    return -(-width // _ALIGNMENT) * _ALIGNMENT


class DualTrackConfig(Section):
    """K weight-independent decoder stacks, run `num_loops` times, swapping in between, summed at the end.

    K = 1 with one pass is an ordinary Llama-style decoder.
    """

    architecture: Literal["dual_track"] = "dual_track"
    """Name in the model registry."""
    num_tracks: PositiveInt = 2
    """K, the number of independent stacks that read the same embedding."""
    num_layers: PositiveInt
    """L, the blocks of one track."""
    num_heads: PositiveInt
    """H, the query heads of an attention layer."""
    num_kv_heads: int = derived(lambda data: data["num_heads"], gt=0)
    """G, the key and value heads; `num_heads` unless stated."""
    hidden_size: PositiveInt
    """D, the width of the residual stream."""
    intermediate_size: int = derived(lambda data: default_intermediate_size(data["hidden_size"]), gt=0)
    """Width inside the SwiGLU; 8/3 of `hidden_size` rounded up to a multiple of 64 unless stated."""
    vocab_size: PositiveInt
    """V, the number of token ids."""
    max_seq_len: PositiveInt
    """T, the length of a training window and the generation context, in tokens."""
    num_loops: PositiveInt = 2
    """R, the weight-tied passes of every track."""
    use_swap: bool = True
    """Between two passes, track k reads the output of track k-1 (mod K) instead of its own."""
    reinject: Literal[True, False, "auto"] = "auto"
    """Whether the embedding is added to what a track reads between passes; auto: with the swap only."""
    attention: Literal["softmax"] = "softmax"
    """The attention operator (mathematics; the backend that computes it is `runtime.attention_backend`)."""
    dropout: Fraction = 0.0
    """Probability of zeroing an element of the embedding and of each residual branch, in training only."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Epsilon of every RMSNorm but the output's."""
    output_norm_eps: float = derived(lambda data: data["norm_eps"], gt=0)
    """Epsilon of the RMSNorm before the language head; `norm_eps` unless stated."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary position frequencies."""
    tie_embeddings: bool = False
    """One matrix for the token embedding and the language head."""

    @property
    def head_dim(self) -> int:
        """E, the width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def reinjects(self) -> bool:
        """`reinject` with `auto` resolved."""
        return self.use_swap if self.reinject == "auto" else self.reinject

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}; "
                f"nearest that does: {_nearest_divisor(self.hidden_size, self.num_heads)}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"hidden_size / num_heads = {self.head_dim} is odd; rotary positions turn pairs of elements, "
                "so it must be even"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}; "
                f"nearest that does: {_nearest_divisor(self.num_heads, self.num_kv_heads)}"
            )
        return self


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = (d for d in range(1, number + 1) if number % d == 0)
    return min(divisors, key=lambda d: (abs(d - wanted), d))


ModelConfig = DualTrackConfig
"""The configurations of all architectures; a union discriminated by `architecture` once there are more."""
