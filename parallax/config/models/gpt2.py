from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from parallax.config.models.base import ModelConfig
from parallax.config.section import derived

Deviation = Annotated[float, Field(ge=0)]


class Gpt2Config(ModelConfig):
    """GPT-2: one stack with learned positions, LayerNorm, GELU, biases, and one matrix for embedding and head.

    The base of its variants, each of which changes one thing.
    """

    architecture: Literal["gpt2"] = "gpt2"
    """Name in the registry of models."""
    intermediate_size: int = derived(lambda data: 4 * data["hidden_size"], gt=0)
    """Width inside the MLP; 4 times `hidden_size` unless stated."""

    @property
    def num_tracks(self) -> int:
        """One stack."""
        return 1

    @property
    def num_loops(self) -> int:
        """One pass."""
        return 1

    @property
    def num_kv_heads(self) -> int:
        """Every query head has its own keys and values."""
        return self.num_heads

    @property
    def tie_embeddings(self) -> bool:
        """The embedding is the head."""
        return True

    @property
    def output_norm_eps(self) -> float:
        """That of all norms."""
        return self.norm_eps

    @property
    def norm(self) -> Literal["rms", "layer"]:
        """LayerNorm."""
        return "layer"

    @property
    def mlp(self) -> Literal["swiglu", "gelu"]:
        """Two matrices with a GELU between them."""
        return "gelu"

    @property
    def has_biases(self) -> bool:
        """All matrix products have them but the head."""
        return True

    @property
    def positions(self) -> Literal["rotary", "learned", "heads"]:
        """A learned embedding."""
        return "learned"

    @property
    def num_positions(self) -> int:
        """Rows of the learned embedding of positions."""
        return self.max_seq_len * self.training_slots if self.positions == "learned" else 0

    @property
    def block_vectors(self) -> int:
        """Two norms with biases, and the biases of q, k, v, attention's output, and both products of the MLP."""
        return 9 * self.hidden_size + self.intermediate_size

    @property
    def shared_vectors(self) -> int:
        """The last norm with its bias, and the positions."""
        return (2 + self.num_positions) * self.hidden_size


class DriftDiffusionConfig(Gpt2Config):
    """GPT-2 whose attention output is scaled by 1 + a learned drift, and gets Gaussian noise added in training."""

    architecture: Literal["gpt2_drift_diffusion"] = "gpt2_drift_diffusion"  # type: ignore[assignment]
    """Name in the registry of models."""
    drift: bool = True
    """Whether attention's output a becomes a + drift * a."""
    diffusion_std: Deviation | list[Deviation] = 0.1
    """Deviation of the noise added to attention's output: one for all heads, or one per head; 0: none."""
    per_head: bool = True
    """Drift and noise are each head's own; false: one drift, and one deviation, for the merged output."""
    diffusion_at_eval: bool = False
    """Noise in evaluation and generation as well, as in the published model."""

    @property
    def deviations(self) -> list[float]:
        """The deviation of each head's noise."""
        given = self.diffusion_std
        return given if isinstance(given, list) else [given] * self.num_heads

    @property
    def diffuses(self) -> bool:
        """Whether any noise is added."""
        return any(self.deviations)

    @property
    def num_drifts(self) -> int:
        """Learned drifts of one layer."""
        return (self.num_heads if self.per_head else 1) if self.drift else 0

    @property
    def draws_noise(self) -> bool:
        """For dropout and for the diffusion."""
        return self.dropout > 0 or self.diffuses

    @property
    def is_noisy_at_eval(self) -> bool:
        """With `diffusion_at_eval`."""
        return self.diffuses and self.diffusion_at_eval

    @property
    def block_vectors(self) -> int:
        """GPT-2's and the drifts."""
        return super().block_vectors + self.num_drifts

    @model_validator(mode="after")
    def _a_deviation_a_head(self) -> Self:
        if isinstance(self.diffusion_std, list):
            if not self.per_head:
                raise ValueError(
                    f"diffusion_std={self.diffusion_std} has one deviation a head, and per_head=false wants one"
                )
            if len(self.diffusion_std) != self.num_heads:
                raise ValueError(
                    f"diffusion_std has {len(self.diffusion_std)} deviations; expected one, or one for each of "
                    f"num_heads={self.num_heads}"
                )
        return self


class ParallelConfig(Gpt2Config):
    """GPT-2 whose layers are taken in pairs that read the same state and are merged: two tracks."""

    architecture: Literal["gpt2_parallel"] = "gpt2_parallel"  # type: ignore[assignment]
    """Name in the registry of models."""
    merge: Literal["mean", "concat"] = "mean"
    """How a pair's outputs become one: their mean, or a learned map of both side by side."""

    @property
    def num_tracks(self) -> int:
        """The two blocks of a pair are on two tracks."""
        return 2

    @property
    def layers_per_track(self) -> int:
        """Pairs."""
        return self.num_layers // 2

    @property
    def num_merges(self) -> int:
        """One a pair."""
        return self.layers_per_track

    @property
    def merge_matrix(self) -> int:
        """A (D, D) part a pair, with `concat`."""
        return self.layers_per_track * self.hidden_size**2 if self.merge == "concat" else 0

    @property
    def shared_vectors(self) -> int:
        """GPT-2's, and with `concat` a bias a pair."""
        biases = self.layers_per_track * self.hidden_size if self.merge == "concat" else 0
        return super().shared_vectors + biases

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.num_layers % 2:
            raise ValueError(
                f"num_layers={self.num_layers} is odd; layers are taken in pairs, so it must be even, such as "
                f"{self.num_layers + 1}"
            )
        return self


class DuoPredictConfig(Gpt2Config):
    """GPT-2 that also fills gaps: between any two tokens stands a query that predicts the token before it.

    The published mask, through which from the second layer on the answer leaks to the query.
    """

    architecture: Literal["gpt2_duo_predict"] = "gpt2_duo_predict"  # type: ignore[assignment]
    """Name in the registry of models."""

    @property
    def is_strict(self) -> bool:
        """Whether a query sees the token after it as embedding only, which never saw the answer."""
        return False

    @property
    def shared_vectors(self) -> int:
        """GPT-2's with a position a slot, and what a query begins as."""
        return super().shared_vectors + self.hidden_size

    @property
    def training_slots(self) -> int:
        """The token's, and its query's."""
        return 2


class StrictDuoPredictConfig(DuoPredictConfig):
    """Duo-predict with a mask that no answer gets through: a query sees the token after it as embedding only."""

    architecture: Literal["gpt2_duo_predict_strict"] = "gpt2_duo_predict_strict"  # type: ignore[assignment]
    """Name in the registry of models."""

    @property
    def is_strict(self) -> bool:
        """It does."""
        return True

    @property
    def training_keys(self) -> int:
        """The token's, its query's, and the embedding's."""
        return 3


class RotatingHeadConfig(Gpt2Config):
    """GPT-2 with rotary positions, whose frequencies are each head's own, in place of learned ones."""

    architecture: Literal["gpt2_rotating_head"] = "gpt2_rotating_head"  # type: ignore[assignment]
    """Name in the registry of models."""
    frequencies: Literal["LR", "GP"] = "LR"
    """LR: learned, from N(0, 1); GP: fixed, exp(s_h) * rope_theta^(-2i/E), s from 0 to `frequency_spread`."""
    use_norm: bool = False
    """LayerNorm over a head's frequencies."""
    frequency_spread: float = 1.0
    """GP: log of the ratio between the last head's frequencies and the first's; 0: those of ordinary rotary."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """GP: base of the frequencies."""
    learned_positions: bool = False
    """GPT-2's learned positions are added to the embedding besides, as the published models have them."""

    @property
    def num_positions(self) -> int:
        """Rows of the learned embedding of positions, where there is one."""
        return self.max_seq_len if self.learned_positions else 0

    @property
    def positions(self) -> Literal["rotary", "learned", "heads"]:
        """Rotary, with each head's own frequencies."""
        return "heads"

    @property
    def block_vectors(self) -> int:
        """GPT-2's, the learned frequencies (H, E/2), and the norm over them."""
        learned = self.num_heads * self.head_dim // 2 if self.frequencies == "LR" else 0
        return super().block_vectors + learned + (self.head_dim if self.use_norm else 0)
