"""Any layout loads what any other saved: weights and moments bit for bit, and trains on as if uninterrupted."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import ALONE, Case, whole
from saving import Saved, load_and_step, train_and_save
from torch import Tensor
from worker_pool import WorkerPool

from parallax.checkpoint.load import read_checkpoint
from parallax.config.layout import Layout

PoolOf = Callable[[int], WorkerPool]
EXACT = {"rtol": 0, "atol": 0}
NEAR = {"rtol": 1e-12, "atol": 1e-12}
TRACK2 = Layout(track=2, dp_replicate=1, dp_shard=1)
TRACK2_DDP2 = Layout(track=2, dp_replicate=2, dp_shard=1)
CASES = {
    "alone": Case(),
    "track2-split": Case(layout=TRACK2, shared="vocab_split"),
    "track2-copied": Case(layout=TRACK2, shared="copy_reduce"),
    "track2-ddp2-split": Case(layout=TRACK2_DDP2, shared="vocab_split"),
    "track2-ddp2-copied": Case(layout=TRACK2_DDP2, shared="copy_reduce"),
    "track2-fsdp2-split": Case(layout=Layout(track=2, dp_replicate=1, dp_shard=2), shared="vocab_split"),
    "fsdp4": Case(layout=Layout(track=1, dp_replicate=1, dp_shard=4)),
    "hsdp2x2": Case(layout=Layout(track=1, dp_replicate=2, dp_shard=2)),
}
Runs = Callable[[str, bool], tuple[Path, list[Saved]]]
NAMES = list(CASES)
FOLLOWED_BY = dict(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True))


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def saved_runs(pool_of: PoolOf, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A function from a layout's name and tying to the run folder it saved into, and what its ranks held."""
    runs: dict[tuple[str, bool], tuple[Path, list[Saved]]] = {}

    def run(name: str, tie: bool) -> tuple[Path, list[Saved]]:
        if (name, tie) not in runs:
            folder = tmp_path_factory.mktemp(name)
            runs[name, tie] = folder, on_its_ranks(pool_of, train_and_save, case_of(name, tie), folder)
        return runs[name, tie]

    return run


def case_of(name: str, tie: bool = False) -> Case:
    return replace(CASES[name], tie=tie)


def on_its_ranks(pool_of: PoolOf, function: Callable[..., Saved], case: Case, run: Path) -> list[Saved]:
    if case.layout == ALONE:
        return [function(case, run)]
    found: list[Saved] = pool_of(case.layout.world_size).run(function, case, run)
    return found


def at_save(ranks: list[Saved]) -> dict[str, Tensor]:
    return whole([rank.at_save for rank in ranks])


def later(ranks: list[Saved]) -> dict[str, Tensor]:
    return whole([rank.later for rank in ranks])


def pairs() -> list[Any]:
    """All pairs, untied. Tied weights are one tensor for two uses: every layout saves and loads it through one
    process, for itself and for another; the other pairs wait for `-m product`."""
    found = []
    for saved, loaded in product(NAMES, NAMES):
        found.append(pytest.param(saved, loaded, False, id=f"{saved}-{loaded}-untied"))
        always = saved == loaded or "alone" in (saved, loaded) or FOLLOWED_BY[saved] == loaded
        marks = [] if always else [pytest.mark.product]
        found.append(pytest.param(saved, loaded, True, id=f"{saved}-{loaded}-tied", marks=marks))
    return found


@pytest.mark.parametrize(("saved", "loaded", "tie"), pairs())
def test_any_layout_goes_on_from_any_other(
    saved: str, loaded: str, tie: bool, saved_runs: Runs, pool_of: PoolOf
) -> None:
    run, savers = saved_runs(saved, tie)
    loaders = on_its_ranks(pool_of, load_and_step, case_of(loaded, tie), run)
    torch.testing.assert_close(at_save(loaders), at_save(savers), **EXACT)
    torch.testing.assert_close(later(loaders), later(savers), **NEAR)
    _, alone = saved_runs("alone", tie)
    torch.testing.assert_close(later(loaders), later(alone), **NEAR)


@pytest.mark.parametrize("name", CASES)
def test_one_process_reads_what_any_layout_saved(name: str, saved_runs: Runs) -> None:
    run, savers = saved_runs(name, False)
    found = read_checkpoint(run)
    expected = at_save(savers)
    assert (found.step, found.texts) == (1, {"config.yaml": "seed: 0\n"})
    assert found.weights.keys() | found.optimizer.keys() == expected.keys()
    for name, tensor in {**found.weights, **found.optimizer}.items():
        assert torch.equal(tensor.view(expected[name].shape).double(), expected[name]), name


@pytest.mark.parametrize("name", [name for name in CASES if name != "alone"])
def test_every_row_is_written_once_and_the_ranks_share_the_work(name: str, saved_runs: Runs) -> None:
    run, savers = saved_runs(name, False)
    manifest = json.loads((run / "step-00000001" / "manifest.json").read_text())
    sizes = [0] * len(savers)
    for file, record in manifest["files"].items():
        if file.endswith(".safetensors"):
            sizes[int(file.split("-rank-")[1][:5])] += record["size_bytes"]
    total = sum(tensor.numel() * 8 for tensor in at_save(savers).values())
    heads = 2 * len(savers) * 12_000
    assert total < sum(sizes) < total + heads
    assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize("name", ["alone", "track2-copied", "fsdp4"])
def test_steps_during_an_asynchronous_save_do_not_change_what_is_saved(
    name: str, tmp_path: Path, pool_of: PoolOf
) -> None:
    case = case_of(name)
    savers = on_its_ranks(pool_of, train_and_save_meanwhile, case, tmp_path)
    loaders = on_its_ranks(pool_of, load_and_step, case, tmp_path)
    assert any(
        not torch.equal(a, b) for a, b in zip(at_save(savers).values(), later(savers).values(), strict=True)
    )
    torch.testing.assert_close(at_save(loaders), at_save(savers), **EXACT)


def train_and_save_meanwhile(case: Case, run: Path) -> Saved:
    return train_and_save(case, run, asynchronous=True)
