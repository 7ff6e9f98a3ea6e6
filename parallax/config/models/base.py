from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from parallax.config.section import Fraction, PositiveInt, Section

_ALIGNMENT = 16


def aligned_width(width: int) -> int:
    """The next multiple of 16: matrix products of such widths run at full rate, of others at about 0.6 of it."""
    return -(-width // _ALIGNMENT) * _ALIGNMENT


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of a number that is nearest to the one wanted, the smaller of two."""
    divisors = (d for d in range(1, number + 1) if number % d == 0)
    return min(divisors, key=lambda d: (abs(d - wanted), d))


class ModelConfig(Section):
    """What the configurations of all architectures have: sizes, and facts that follow from them.

    The harness knows a model by these and by its entry in the registry of models, never by an architecture's name.
    """

    num_layers: PositiveInt
    """L, the blocks of one track."""
    num_heads: PositiveInt
    """H, the query heads of an attention layer."""
    hidden_size: PositiveInt
    """D, the width of the residual stream."""
    vocab_size: PositiveInt
    """V, the number of token ids."""
    max_seq_len: PositiveInt
    """T, the length of a training window and the generation context, in tokens."""
    attention: Literal["softmax", "plla"] = "softmax"
    """The attention operator, softmax or plla (mathematics; the backend that computes it is
    `runtime.attention_backend`)."""
    dropout: Fraction = 0.0
    """Probability of zeroing an element of the embedding and of each residual branch, in training only."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Epsilon of every norm but, where it has its own, the output's."""

    if TYPE_CHECKING:
        # Keys in some architectures, and settled in others.
        @property
        def architecture(self) -> str:
            """Name in the registry of models."""

        @property
        def num_tracks(self) -> int:
            """K, the independent stacks, which may be spread over ranks."""

        @property
        def num_loops(self) -> int:
            """R, the weight-tied passes of every track."""

        @property
        def num_kv_heads(self) -> int:
            """G, the key and value heads."""

        @property
        def intermediate_size(self) -> int:
            """I, the width inside the MLP."""

        @property
        def tie_embeddings(self) -> bool:
            """One matrix for the token embedding and the language head."""

        @property
        def output_norm_eps(self) -> float:
            """Epsilon of the norm before the language head."""

        @property
        def rope_theta(self) -> float:
            """Base of the frequencies of rotary positions, where there are any."""

    @property
    def head_dim(self) -> int:
        """E, the width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def layers_per_track(self) -> int:
        """Blocks of one track."""
        return self.num_layers

    @property
    def executed_blocks(self) -> int:
        """Blocks that a token passes, in all tracks and passes."""
        return self.num_tracks * self.layers_per_track * self.num_loops

    @property
    def num_swaps(self) -> int:
        """How often, in a forward, every track sends its output to its neighbour."""
        return 0

    @property
    def num_merges(self) -> int:
        """How often, in a forward, the tracks' outputs are summed."""
        return 1

    @property
    def norm(self) -> Literal["rms", "layer"]:
        """Which norm: RMSNorm, or LayerNorm with a bias."""
        return "rms"

    @property
    def mlp(self) -> Literal["swiglu", "gelu"]:
        """Which MLP: SwiGLU's three matrices, or two with a GELU between them."""
        return "swiglu"

    @property
    def has_biases(self) -> bool:
        """Whether matrix products in blocks have biases."""
        return False

    @property
    def positions(self) -> Literal["rotary", "learned", "heads"]:
        """Rotary with frequencies that all heads share, a learned embedding, or rotary with each head's own."""
        return "rotary"

    @property
    def num_positions(self) -> int:
        """Rows of the learned embedding of positions; 0: there is none."""
        return 0

    @property
    def has_directions(self) -> bool:
        """Whether a fourth projection gives each query head a direction r: PLLA."""
        return self.attention == "plla"

    @property
    def draws_noise(self) -> bool:
        """Whether a training forward needs keys to draw noise from."""
        return self.dropout > 0

    @property
    def is_noisy_at_eval(self) -> bool:
        """Whether evaluation and generation draw noise too."""
        return False

    @property
    def block_vectors(self) -> int:
        """Parameters of one block outside its matrices: the weights of two norms."""
        return 2 * self.hidden_size

    @property
    def merge_matrix(self) -> int:
        """Parameters of the matrices by which one track enters the merges."""
        return 0

    @property
    def shared_vectors(self) -> int:
        """Parameters outside tracks and vocabulary: the weight of the last norm."""
        return self.hidden_size

    @property
    def training_slots(self) -> int:
        """Places that a token takes in a training forward."""
        return 1

    @property
    def training_keys(self) -> int:
        """Keys that a token gives in a training forward."""
        return self.training_slots

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}; "
                f"nearest that does: {nearest_divisor(self.hidden_size, self.num_heads)}"
            )
        if self.positions != "learned" and self.head_dim % 2:
            raise ValueError(
                f"hidden_size / num_heads = {self.head_dim} is odd; rotary positions turn pairs of elements, "
                "so it must be even"
            )
        return self
