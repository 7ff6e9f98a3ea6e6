from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from evaluation.jackknife import Array
from evaluation.tracks.ablation import Ablation, ablated
from evaluation.tracks.similarity import cosine_sums, hsic_sums
from evaluation.tracks.states import States, capture_states
from parallax.model.documents import document_ids
from parallax.model.dual_track import DualTrack
from parallax.model.head import IGNORE_INDEX, HeadOutput, Objective

Batch = tuple[Tensor, Tensor]
"""(B, T) tokens and targets; a row is a window."""
_TINY = 1e-30


@dataclass
class WindowSums:
    """What each window adds, in lists of one entry a window; S states, P parts."""

    tokens: list[float] = field(default_factory=list)
    """Tokens predicted."""
    loss: list[float] = field(default_factory=list)
    """Nats."""
    hsic: list[Array] = field(default_factory=list)
    """(S, S)."""
    cosine: list[Array] = field(default_factory=list)
    """(S, S)."""
    outputs: list[Array] = field(default_factory=list)
    """(3, K): share, norm and loss change of each track's last output."""
    increments: list[Array] = field(default_factory=list)
    """(3, 1 + K R): those of the embedding, then of each track's passes."""
    fused_early: list[Array] = field(default_factory=list)
    """(R,) nats when each pass's outputs are fused."""


@dataclass(frozen=True)
class Reader:
    """Reads batches with a model, documents apart where they were in training."""

    model: DualTrack
    separating_eos_id: int | None = None

    def place(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens, targets and documents on the model's device."""
        device = self.model.embedding.weight.device
        tokens, targets = (part.to(device) for part in batch)
        eos = self.separating_eos_id
        return tokens, targets, None if eos is None else document_ids(tokens, eos)

    def losses(self, batch: Batch) -> Array:
        """(B,) nats of each window."""
        tokens, targets, documents = self.place(batch)
        output: HeadOutput = self.model(tokens, targets, per_token=True, documents=documents)
        assert output.token_nll is not None
        return _by_window(output.token_nll)

    def fused_losses(self, fused: Tensor, targets: Tensor) -> Tensor:
        """(B, T) nats of each token, given the sum of the tracks."""
        output: HeadOutput = self.model.head(self.model.norm(fused), targets, Objective(), True)
        assert output.token_nll is not None
        return output.token_nll


def sweep_states(
    reader: Reader, batches: Sequence[Batch], *, similarity: bool, fuse: bool, progress: Callable[[], None]
) -> tuple[WindowSums, Tensor]:
    """One forward of each batch, looked into; returns also the (K, R, D) mean outputs of tracks and passes."""
    sums, means, count = WindowSums(), torch.zeros(()), 0.0
    for batch in batches:
        tokens, targets, documents = reader.place(batch)
        states, output = capture_states(reader.model, tokens, targets, documents)
        assert output.token_nll is not None
        valid = targets != IGNORE_INDEX
        sums.tokens += valid.sum(1).tolist()
        sums.loss += _by_window(output.token_nll).tolist()
        means = means.to(valid.device) + states.depths[:, :, -1, valid].double().sum(2)
        count += float(valid.sum())
        if similarity:
            for row, read in enumerate(valid):
                picked = states.depths[:, :, :, row, read].flatten(0, 2)
                sums.hsic.append(hsic_sums(picked).cpu().numpy())
                sums.cosine.append(cosine_sums(picked).cpu().numpy())
        if fuse:
            _add_parts(sums, reader, states, targets, output.token_nll)
        progress()
    return sums, means / count


def sweep_ablations(
    reader: Reader,
    batches: Sequence[Batch],
    ablations: Sequence[Ablation],
    means: Tensor,
    progress: Callable[[], None],
) -> Array:
    """(W, A) nats of each window with each thing taken out."""
    columns = []
    for ablation in ablations:
        with ablated(reader.model, ablation, means):
            rows = []
            for batch in batches:
                rows.append(reader.losses(batch))
                progress()
        columns.append(np.concatenate(rows))
    return np.stack(columns, axis=-1)


def increments_of(states: States, adds_embedding: bool) -> Tensor:
    """(1 + K R, B, T, D) parts that sum to the fused vector: the embedding, then track by track its passes.

    Residual streams only add: with x read by K tracks and, if reinjected, added again before each of the R - 1
    further passes, fused = K (1 + (R - 1)) x + the sum of what every track's blocks added in every pass.
    Swaps move what was added, and so do not change the sum.
    """
    tracks, passes = states.depths.shape[:2]
    times = tracks * (passes if adds_embedding else 1)
    added = states.depths[:, :, -1] - states.depths[:, :, 0]
    return torch.cat((times * states.embedded[None], added.flatten(0, 1)))


def _add_parts(sums: WindowSums, reader: Reader, states: States, targets: Tensor, whole: Tensor) -> None:
    outputs = states.depths[:, -1, -1]
    increments = increments_of(states, reader.model.config.reinjects)
    for parts, kept in ((outputs, sums.outputs), (increments, sums.increments)):
        figures = [_part_figures(part, reader, states.fused, targets, whole) for part in parts]
        kept.extend(np.stack(figures, axis=-1))  # (B, 3, P), window by window
    early = [
        reader.fused_losses(states.depths[:, loop, -1].sum(0), targets) for loop in range(states.depths.shape[1])
    ]
    sums.fused_early.extend(np.stack([_by_window(nll) for nll in early], axis=-1))


def _part_figures(part: Tensor, reader: Reader, fused: Tensor, targets: Tensor, whole: Tensor) -> Array:
    """(B, 3) share, norm and loss change of one part, summed over each window's valid tokens."""
    valid = (targets != IGNORE_INDEX).double()
    wide, total = part.double(), fused.double()
    square = total.square().sum(-1).clamp(min=_TINY)
    share = (wide * total).sum(-1) / square
    norm = (wide.square().sum(-1) / square).sqrt()
    change = reader.fused_losses(fused - part, targets).double() - whole.double()
    return np.stack([_by_window(figure * valid) for figure in (share, norm, change)], axis=-1)


def _by_window(values: Tensor) -> Array:
    """(B, T) -> (B,) sums in float64."""
    summed: Array = values.double().sum(1).cpu().numpy()
    return summed
