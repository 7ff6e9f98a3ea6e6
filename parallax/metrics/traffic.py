from dataclasses import dataclass
from typing import Literal

from parallax.config.layout import Layout
from parallax.config.models.base import ModelConfig
from parallax.metrics.flops import parameter_counts

_FP32_BYTES = 4
_STATISTICS = 5
"""Numbers a token that the ranks of a split vocabulary tell each other."""


@dataclass(frozen=True)
class StepBytes:
    """What one rank sends in an optimizer step, on rings, as a + b N over N tokens of the global batch."""

    per_token: float
    """b: the tracks' states, which the track axis carries."""
    fixed: float
    """a: the gradients, and gathered weights, which the data-parallel axes carry."""

    def of(self, tokens: float) -> float:
        """Bytes of a step over that many tokens."""
        return self.fixed + self.per_token * tokens


def step_bytes(config: ModelConfig, layout: Layout, shared: Literal["vocab_split", "copy_reduce"]) -> StepBytes:
    """Closed form of what a layout sends; states, gradients and weights travel in fp32.

    An all-reduce of S bytes over n ranks sends 2 (n - 1) / n S. Along the track axis of n ranks, a model that
    swaps s times (R - 1 over R passes) and merges m times moves, for each token of width D,

        copy_reduce   2 m all-reduces and 2 s shifts of 4 D bytes
        vocab_split   2 more all-reduces and as many shifts, and 20 (n - 1) bytes for the loss

    Along the data-parallel axes a rank's P' parameters are reduced once, 2 (d - 1) / d 4 P' bytes over d ranks.
    FSDP2 that gathers every weight once sends the same; weights gathered anew for each pass come on top.

    Args:
        config: the model.
        layout: of the ranks; without a track axis it is DDP.
        shared: the form of embedding and head along the track axis.
    """
    ring = 2 * (layout.track - 1) / layout.track
    splits = shared == "vocab_split"
    state = _FP32_BYTES * config.hidden_size
    shifts = 2 * config.num_swaps
    sums = 2 * config.num_merges + (2 if splits else 0)
    per_token = 0.0
    if layout.track > 1:
        statistics = _STATISTICS * _FP32_BYTES * (layout.track - 1) if splits else 0
        per_token = (sums * ring + shifts) * state + statistics
    held = local_parameters(config, layout.track, splits=splits)
    fixed = 2 * (layout.dp - 1) / layout.dp * _FP32_BYTES * held
    return StepBytes(per_token / layout.dp, fixed)


def local_parameters(config: ModelConfig, track_ranks: int, *, splits: bool) -> int:
    """P', the parameters of a rank before they are sharded: its tracks, and its rows or all of the shared ones.

    Rows are counted as the first rank's, which has ceil(V / n).
    """
    counts = parameter_counts(config)
    tracks = config.num_tracks * counts.per_track
    rows = -(-config.vocab_size // track_ranks) if splits else config.vocab_size
    vocabulary = (counts.total - counts.without_embeddings) // config.vocab_size * rows
    return tracks // track_ranks + counts.without_embeddings - tracks + vocabulary


def crossover_tokens(tracks: StepBytes, ddp: StepBytes) -> float | None:
    """Tokens of an optimizer step above which DDP, whose bytes do not grow with them, sends fewer.

    Returns:
        None: the layout sends no more than DDP however many tokens; 0 or less: DDP always sends fewer.
    """
    if tracks.per_token <= ddp.per_token:
        return None
    return (ddp.fixed - tracks.fixed) / (tracks.per_token - ddp.per_token)
