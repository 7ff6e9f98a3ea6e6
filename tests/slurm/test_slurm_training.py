"""A job over two nodes trains what one process trains."""

import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.slurm.cluster import CHECKOUT, Cluster
from evaluation.slurm.runs import CONFIG, SlurmRun


@pytest.mark.timeout(600)
def test_two_nodes_of_two_ranks_have_the_losses_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    # Another order of sums differs in the last digit of fp32, which training multiplies from step to step.
    spread, alone = (SlurmRun(tmp_path / str(ranks), cluster, ranks_per_node=ranks, steps=20) for ranks in (2, 1))
    job = spread.submit()
    command = [sys.executable, "-m", "parallax.train", CONFIG, *alone.settings]
    subprocess.run(command, env=cluster.environment, cwd=CHECKOUT, check=True, timeout=200, capture_output=True)
    ended = cluster.finish(job, spread.log, 200.0)
    log = spread.log.read_text()
    assert (ended.state, ended.exit_code, ended.restarts) == ("COMPLETED", "0:0", 0), log
    assert "track 2 x dp_replicate 2 x dp_shard 1" in log
    assert spread.losses == pytest.approx(alone.losses, rel=1e-5)
    assert spread.state() == f"done {job}.0"
    assert spread.events[0]["slurm"]["nodelist"] == "node[1-2]"
