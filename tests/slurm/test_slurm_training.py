"""A job over two nodes trains what one process trains."""

import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import CHECKOUT, Cluster
from slurm_runs import CONFIG, SlurmRun

_SHORT = "train.max_steps=20"  # rounding grows from step to step, under any launcher


@pytest.mark.timeout(600)
def test_two_nodes_of_two_ranks_have_the_losses_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    spread, alone = SlurmRun(tmp_path / "spread", cluster, ranks_per_node=2), SlurmRun(tmp_path / "alone", cluster)
    job = spread.submit(_SHORT)
    command = [sys.executable, "-m", "parallax.train", CONFIG, *alone.settings, _SHORT]
    subprocess.run(command, env=cluster.environment, cwd=CHECKOUT, check=True, timeout=200, capture_output=True)
    ended = cluster.finish(job, spread.log, 200.0)
    log = spread.log.read_text()
    assert (ended.state, ended.exit_code, ended.restarts) == ("COMPLETED", "0:0", 0), log
    assert "track 2 x dp_replicate 2 x dp_shard 1" in log
    assert spread.losses_of(20) == pytest.approx(alone.losses_of(20), rel=1e-5)
    assert spread.state() == f"done {job}.0"
    assert spread.events[0]["slurm"]["nodelist"] == "node[1-2]"
