from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from evaluation.jackknife import Array, Estimate, Estimates
from evaluation.output import plain
from parallax.config.models.dual_track import DualTrackConfig


@dataclass(frozen=True)
class Setting:
    """What was looked at, and on what."""

    model: str
    data: str
    num_tracks: int
    num_loops: int
    num_layers: int
    use_swap: bool
    tokens: int
    windows: int

    @classmethod
    def of(cls, config: DualTrackConfig, model: str, data: str, window_tokens: Sequence[float]) -> Self:
        """Of a model's configuration, where model and text come from, and each window's tokens."""
        return cls(
            model=model,
            data=data,
            num_tracks=config.num_tracks,
            num_loops=config.num_loops,
            num_layers=config.num_layers,
            use_swap=config.use_swap,
            tokens=int(sum(window_tokens)),
            windows=len(window_tokens),
        )

    @property
    def depths(self) -> list[str]:
        """Names of a pass's depths: what it reads, and after each block."""
        return ["in", *(str(layer) for layer in range(1, self.num_layers + 1))]


@dataclass(frozen=True)
class Similarity:
    """How alike the states of two tracks are, or of one track in two passes."""

    pairs: list[tuple[int, int]]
    """Between tracks: the two. Between passes: (track, pass), of that pass and the next; passes from 1."""
    cka: Estimates
    """(pairs, R, L + 1) between tracks, (pairs, L + 1) between passes: linear CKA, from the unbiased HSIC."""
    cosine: Estimates
    """The same shape: mean cosine of the two states of a token."""


@dataclass(frozen=True)
class Map:
    """Linear CKA of all states with all states."""

    labels: list[str]
    """Of the states, by track, pass and depth, in this order: `0.1.in` is what track 0 reads in pass 1."""
    cka: Array
    """(S, S)."""


@dataclass(frozen=True)
class Contribution:
    """A part of the vector that the tracks are fused to; parts of one list sum to it."""

    name: str
    share: Estimate
    """Mean over tokens of part . fused / |fused|^2; of all parts together 1."""
    norm: Estimate
    """Mean over tokens of |part| / |fused|."""
    loss_change: Estimate
    """Nats a token that are lost when the part alone is taken from the fused vector, all else as it was."""


@dataclass(frozen=True)
class Ablated:
    """The model without something."""

    name: str
    loss: Estimate
    """Nats a token."""
    change: Estimate
    """Beside the whole model on the same windows."""


@dataclass(frozen=True)
class Found:
    """What is known of a model's tracks; parts that were not asked for are None or empty."""

    setting: Setting
    loss: Estimate
    """Of the whole model, in nats a token."""
    tracks: Similarity | None = None
    passes: Similarity | None = None
    map: Map | None = None
    outputs: tuple[Contribution, ...] = ()
    """The last outputs of the tracks, of which the fused vector is the sum."""
    increments: tuple[Contribution, ...] = ()
    """The same sum by who added it when: the embedding, and each track's blocks in each pass."""
    fused_early: tuple[Estimate, ...] = ()
    """Loss when the outputs of pass 1, 2, ... are fused instead of the last ones'."""
    ablations: tuple[Ablated, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it in numbers, lists and objects; NaN is null."""
        found = plain(asdict(self))
        assert isinstance(found, dict)
        return found
