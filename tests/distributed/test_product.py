"""All factors with all others, and the table of what they measured: `python -m pytest -m product`.

It takes about ten minutes and writes `docs/PARITY.md`; every pair of factors is in `test_parity.py`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from cases import LAYOUTS, WAYS, product_cases
from parity import Differences, compare, train_two_steps
from worker_pool import WorkerPool

EXACT = 1e-10
PAGE = Path(__file__).parents[2] / "docs" / "PARITY.md"
Rows = dict[tuple[str, str], tuple[int, Differences]]


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """Filled by the tests; the page is written once every way is in it."""
    found: Rows = {}
    yield found
    if len(found) == len(WAYS):
        PAGE.write_text(_page(found))


@pytest.mark.product
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_all_factors_with_all_others(
    way: tuple[str, str], rows: Rows, pool_of: Callable[[int], WorkerPool]
) -> None:
    cases = product_cases(way)
    pool = pool_of(LAYOUTS[way[0]].world_size)
    found = [compare(case, pool.run(train_two_steps, case)) for case in cases]
    worst = Differences(*map(max, zip(*found, strict=True)))
    assert max(worst[:4]) < EXACT, worst
    assert worst.ledger == 0
    rows[way] = len(cases), worst


def _page(rows: Rows) -> str:
    lines = [_INTRODUCTION.format(torch=torch.__version__.split("+")[0], cases=sum(n for n, _ in rows.values()))]
    for (layout, shared), (count, worst) in rows.items():
        sizes = LAYOUTS[layout]
        across = " (across)" if sizes.track_across else ""
        cells = [
            f"{sizes.track}{across}",
            str(sizes.dp_replicate),
            str(sizes.dp_shard),
            shared if sizes.track > 1 else "-",
            str(count),
            *(f"{value:.1e}" for value in worst[:4]),
            str(worst.ledger),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = """# Parity of the layouts

Written by `python -m pytest -m product`: do not edit. {cases} trainings over gloo in float64 (torch {torch}), each
compared with one process that trains the same model on the same samples in one micro-batch: passes 1, 2, 3;
tracks K = 2, 4 (4, 8 on 4 track ranks); accumulation 1, 2; tied and untied; with dp_shard > 1, gathered weights
kept and freed after a pass; label smoothing 0.1, z-loss 0.01, some targets skipped. A vocabulary of 13 leaves the
ranks uneven shares.

The largest absolute difference of all cases: loss per token in two steps, every element of every gradient of the
first step, the global norm before clipping in both, every weight after two clipped AdamW steps. The tests refuse
1e-10. *Ledger* counts where a rank moved other bytes, or in other collectives, than the formula in
`parallax/parallel/prediction.py` says.

| track | dp_replicate | dp_shard | shared | cases | loss | gradient | norm | weights | ledger |
|---|---|---|---|---|---|---|---|---|---|"""
