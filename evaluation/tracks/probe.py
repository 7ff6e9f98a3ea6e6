from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from evaluation.arguments import check_names
from evaluation.jackknife import Array, Estimate, jackknife, ratio
from evaluation.tracks.ablation import list_ablations
from evaluation.tracks.found import Ablated, Contribution, Found, Map, Setting, Similarity
from evaluation.tracks.similarity import cka
from evaluation.tracks.sweep import Batch, Reader, WindowSums, sweep_ablations, sweep_states
from parallax.config.models.dual_track import DualTrackConfig
from parallax.errors import ConfigError, DataError, NonFiniteError
from parallax.model.dual_track import DualTrack
from parallax.model.mode import evaluation_mode

Places = npt.NDArray[np.signedinteger]
"""Numbers of states among all."""
TRACKS, PASSES, FUSE, ABLATIONS = "tracks", "passes", "fuse", "ablations"
SHOWN = (TRACKS, PASSES, FUSE, ABLATIONS)
"""What can be looked at: tracks beside each other, passes beside each other, parts of the fused vector, losses
with something taken out."""


def probe(
    model: DualTrack,
    batches: Sequence[Batch],
    *,
    source: str,
    data: str,
    separating_eos_id: int | None = None,
    show: Sequence[str] = SHOWN,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Looks into a model that reads windows of text; the model is as it was afterwards.

    Args:
        model: all of it on one device.
        batches: windows of text, see `validation_batches`.
        source: where the model comes from, for the report.
        data: where the text comes from, for the report.
        separating_eos_id: the token that parts documents, where they do not see each other; None: they do.
        show: of `SHOWN`.
        progress: called with the batches read and how many there will be.

    Raises:
        ConfigError: one track, and something asked for that compares tracks.
        DataError: fewer than 2 windows.
        NonFiniteError: the model's loss is NaN or infinite.
    """
    config = model.config
    check_shown(config, show, source)
    windows = sum(len(tokens) for tokens, _ in batches)
    if windows < 2:
        raise DataError(f"{data}: {windows} windows of text give no interval; give more text or tokens")
    ablations = list_ablations(config) if ABLATIONS in show else []
    done, total = 0, len(batches) * (1 + len(ablations))

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    reader = Reader(model, separating_eos_id)
    similarity = TRACKS in show or (PASSES in show and config.num_loops > 1)
    with evaluation_mode(model), torch.no_grad():
        sums, means = sweep_states(reader, batches, similarity=similarity, fuse=FUSE in show, progress=advance)
        if not np.isfinite(sums.loss).all():
            raise NonFiniteError(
                f"{source}: the loss is not finite; the weights are damaged or the dtype overflows"
            )
        losses = sweep_ablations(reader, batches, ablations, means, advance) if ablations else None
    names = [ablation.name for ablation in ablations]
    found = _summarise(sums, config, Setting.of(config, source, data, sums.tokens), show)
    return replace(found, ablations=_ablated(names, losses, sums) if losses is not None else ())


def check_shown(config: DualTrackConfig, show: Sequence[str], source: str) -> None:
    """Checks what was asked for before text is read.

    Raises:
        ConfigError: see `probe`.
    """
    check_names(show, SHOWN, "--show")
    between = [name for name in (TRACKS, ABLATIONS) if name in show]
    if config.num_tracks == 1 and between:
        raise ConfigError(
            f"{source} has one track, so there is nothing to compare it with ({', '.join(between)}); --show "
            f"{PASSES},{FUSE} shows how its passes differ and what each adds"
        )


def _summarise(sums: WindowSums, config: DualTrackConfig, setting: Setting, show: Sequence[str]) -> Found:
    """All but the ablations."""
    counts = np.array(sums.tokens)
    tracks, passes, everything = _similarities(sums, config) if sums.hsic else (None, None, None)
    return Found(
        setting=setting,
        loss=jackknife((np.array(sums.loss), counts), ratio).at(),
        tracks=tracks if TRACKS in show else None,
        passes=passes if PASSES in show else None,
        map=everything,
        outputs=_contributions(sums.outputs, counts, _output_names(config)),
        increments=_contributions(sums.increments, counts, _increment_names(config)),
        fused_early=_per_column(np.array(sums.fused_early), counts) if FUSE in show else (),
    )


def _similarities(sums: WindowSums, config: DualTrackConfig) -> tuple[Similarity, Similarity | None, Map]:
    """Between tracks at equal pass and depth, between a track's neighbouring passes, and of all with all."""
    tracks, passes, depths = config.num_tracks, config.num_loops, config.num_layers + 1
    place = np.arange(tracks * passes * depths).reshape(tracks, passes, depths)
    ckas = jackknife([np.stack(sums.hsic)], cka)
    cosines = jackknife([np.stack(sums.cosine), np.array(sums.tokens)], ratio)

    def compare(pairs: list[tuple[int, int]], left: Places, right: Places) -> Similarity:
        return Similarity(pairs, ckas[left, right], cosines[left, right])

    pairs = list(combinations(range(tracks), 2))
    firsts, seconds = [i for i, _ in pairs], [j for _, j in pairs]
    steps = [(k, loop) for k in range(tracks) for loop in range(1, passes)]
    of, after = [k for k, _ in steps], [loop for _, loop in steps]
    names = ["in", *map(str, range(1, depths))]
    labels = [f"{k}.{r + 1}.{name}" for k in range(tracks) for r in range(passes) for name in names]
    return (
        compare(pairs, place[firsts], place[seconds]),
        compare(steps, place[of, [r - 1 for r in after]], place[of, after]) if steps else None,
        Map(labels, ckas.value),
    )


def _contributions(sums: Sequence[Array], counts: Array, names: Sequence[str]) -> tuple[Contribution, ...]:
    if not sums:
        return ()
    found = jackknife((np.stack(sums), counts), ratio)
    return tuple(
        Contribution(name, *(found.at(figure, part) for figure in range(3))) for part, name in enumerate(names)
    )


def _ablated(names: Sequence[str], losses: Array, sums: WindowSums) -> tuple[Ablated, ...]:
    counts, whole = np.array(sums.tokens), np.array(sums.loss)
    found = _per_column(losses, counts)
    changes = _per_column(losses - whole[:, None], counts)
    return tuple(Ablated(*row) for row in zip(names, found, changes, strict=True))


def _per_column(sums: Array, counts: Array) -> tuple[Estimate, ...]:
    found = jackknife((sums, counts), ratio)
    return tuple(found.at(column) for column in range(sums.shape[1]))


def _output_names(config: DualTrackConfig) -> list[str]:
    return [f"track {k}" for k in range(config.num_tracks)]


def _increment_names(config: DualTrackConfig) -> list[str]:
    passes = range(1, config.num_loops + 1)
    return ["embedding", *(f"track {k}, pass {r}" for k in range(config.num_tracks) for r in passes)]
