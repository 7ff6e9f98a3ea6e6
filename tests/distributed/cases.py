"""The factors that layouts are tested over: all their products, and few cases that cover every pair."""

from collections.abc import Iterable
from itertools import combinations, product

from allpairspy import AllPairs
from parity import ALONE, Case
from zoo_models import PLLA_VARIANTS

from parallax.config.layout import Layout

LAYOUTS = {
    "alone": ALONE,
    "track2": Layout(track=2, dp_replicate=1, dp_shard=1),
    "ddp2": Layout(track=1, dp_replicate=2, dp_shard=1),
    "fsdp2": Layout(track=1, dp_replicate=1, dp_shard=2),
    "track4": Layout(track=4, dp_replicate=1, dp_shard=1),
    "ddp4": Layout(track=1, dp_replicate=4, dp_shard=1),
    "fsdp4": Layout(track=1, dp_replicate=1, dp_shard=4),
    "hsdp2x2": Layout(track=1, dp_replicate=2, dp_shard=2),
    "track2-ddp2": Layout(track=2, dp_replicate=2, dp_shard=1),
    "track2-fsdp2": Layout(track=2, dp_replicate=1, dp_shard=2),
    "track2-across-ddp2": Layout(track=2, dp_replicate=2, dp_shard=1, track_across=True),
    "track2-across-fsdp2": Layout(track=2, dp_replicate=1, dp_shard=2, track_across=True),
}
WAYS = [
    (name, shared)
    for name, layout in LAYOUTS.items()
    for shared in (("vocab_split", "copy_reduce") if layout.track > 1 else ("auto",))
]
"""A layout and, where there is a choice, how its track axis treats embedding and head."""
VARIANTS = (
    *("gpt2", "drift", "drift, diffusion", "merged drift, diffusion", "mean", "concat"),
    *("LR norm", "GP norm", "duo", "duo strict", *PLLA_VARIANTS),
)
"""Those of the GPT-2 family that no other of it has all parts of."""
PARALLEL = ("mean", "concat")
"""Those whose two tracks can be on two ranks."""
FACTORS = (WAYS, (1, 2, 3), (1, 2), (1, 2), (False, True), (False, True))
"""Way, passes, multiples of the fewest tracks, accumulation, tied embedding, whether gathered weights are freed.

Any values go together, since `allpairspy` leaves out possible pairs where some are ruled out.
"""


def case_of(row: tuple) -> Case:
    """The case of one value per factor."""
    (name, shared), loops, multiple, accumulation, tie, reshard = row
    layout = LAYOUTS[name]
    return Case(
        layout=layout,
        shared=shared,
        num_tracks=max(layout.track, 2) * multiple,
        num_loops=loops,
        accumulation=accumulation,
        tie=tie,
        reshard_after_forward=reshard and layout.dp_shard > 1,
    )


def pair_rows() -> list[tuple]:
    """Few rows in which every pair of two factors' values occurs."""
    return [tuple(row) for row in AllPairs([list(values) for values in FACTORS])]


def product_cases(way: tuple[str, str]) -> list[Case]:
    """Every case of one way."""
    return list(dict.fromkeys(case_of(row) for row in product([way], *FACTORS[1:])))


def pairs_of(rows: Iterable[tuple]) -> set[tuple]:
    """Every pair of two factors' values that occurs."""
    return {(i, row[i], j, row[j]) for row in rows for i, j in combinations(range(len(row)), 2)}
