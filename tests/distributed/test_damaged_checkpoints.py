"""What several ranks saved, damaged: all ranks pass over it alike, and never load it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sharded_steps import assert_newest_is, checkpoint_group, save_steps
from worker_pool import WorkerPool

from parallax.checkpoint.sharded_store import ShardedStore

PoolOf = Callable[[int], WorkerPool]
FILES = (
    "config.yaml",
    "manifest.json",
    "model-rank-00000.safetensors",
    "model-rank-00001.safetensors",
    "optimizer-rank-00000.safetensors",
    "optimizer-rank-00001.safetensors",
    "state.json",
    "tokenizer.json",
)


@pytest.fixture(scope="module")
def run(pool_of: PoolOf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder into which two ranks saved the steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run")
    pool_of(2).run(save_steps, folder, 1, 2)
    return folder


def newest_step(folder: Path) -> tuple[str | None, list[str]]:
    reports: list[str] = []
    path = ShardedStore(folder, 9, group=checkpoint_group(), report=reports.append).newest_good()
    return path.name if path else None, reports


def test_these_are_all_files_of_a_checkpoint_of_two_ranks(run: Path) -> None:
    assert sorted(file.name for file in (run / "step-00000002").iterdir()) == sorted(FILES)
    assert_newest_is(run, 2)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_noticed_by_all_ranks(name: str, share: float, run: Path, pool_of: PoolOf) -> None:
    file = run / "step-00000002" / name
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[int(share * len(whole))] ^= 4
    file.write_bytes(damaged)
    try:
        for step, reports in pool_of(2).run(newest_step, run):
            assert step == "step-00000001"
            [report] = reports
            assert name in report
        assert_newest_is(run, 1)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed_by_all_ranks(name: str, run: Path, pool_of: PoolOf) -> None:
    file = run / "step-00000002" / name
    whole = file.read_bytes()
    file.unlink()
    try:
        assert [step for step, _ in pool_of(2).run(newest_step, run)] == ["step-00000001"] * 2
        assert_newest_is(run, 1)
    finally:
        file.write_bytes(whole)
