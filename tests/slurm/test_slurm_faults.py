"""What kills a rank, a daemon, a node or a cable costs a job some seconds and the steps since a checkpoint.

The stated times, from the fault until the job is back in the queue: 20 s where the ranks find the loss themselves
(`runtime.deadline_seconds`, 10 here, and the end of the step), 60 s where Slurm has to (`SlurmdTimeout`, 10 here).
"""

import os
import signal
from pathlib import Path

import pytest

from evaluation.slurm.cluster import Cluster
from evaluation.slurm.disturb import RANK
from evaluation.slurm.runs import SlurmRun

_DEADLINE = "runtime.deadline_seconds=10"
_FOUND_BY_RANKS_SECONDS = 20.0
_FOUND_BY_SLURM_SECONDS = 60.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> SlurmRun:
    return SlurmRun(tmp_path, cluster)


def _wait_for_requeue(cluster: Cluster, run: SlurmRun, job: str, within_seconds: float) -> None:
    cluster.wait_until(lambda: cluster.show(job).restarts == 1, "the requeue", within_seconds, run.log)


def _assert_done(cluster: Cluster, run: SlurmRun, job: str, undisturbed: list[float]) -> None:
    ended = cluster.finish(job, run.log)
    assert (ended.state, ended.exit_code, ended.restarts) == ("COMPLETED", "0:0", 1), run.log.read_text()
    assert run.losses == undisturbed
    assert run.state() == f"done {job}.1"


def _damage(checkpoint: Path) -> None:
    [file] = checkpoint.glob("model-rank-00000.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.product
def test_a_killed_rank(run: SlurmRun, cluster: Cluster, undisturbed: list[float]) -> None:
    job = run.submit(_DEADLINE)
    run.wait_for_step(23)
    [rank] = cluster.processes(2, RANK)
    os.kill(rank, signal.SIGKILL)
    _wait_for_requeue(cluster, run, job, _FOUND_BY_RANKS_SECONDS)
    _assert_done(cluster, run, job, undisturbed)
    assert run.resumed_at()[0] in (20, 30)


def test_a_killed_node_and_a_damaged_checkpoint(run: SlurmRun, cluster: Cluster, undisturbed: list[float]) -> None:
    job = run.submit(_DEADLINE)
    run.wait_for_step(23)
    first = cluster.show(job)
    assert first.batch_host == "node1"
    cluster.node("kill", 1)
    newest = max((run.path / "checkpoints").glob("step-*"))
    _damage(newest)
    try:
        _wait_for_requeue(cluster, run, job, _FOUND_BY_SLURM_SECONDS)
        _assert_done(cluster, run, job, undisturbed)
    finally:
        cluster.node("start", 1)
    assert run.resumed_at() == [int(newest.name.removeprefix("step-")) - 10]
    assert f"passing over the damaged checkpoint {newest}" in run.log.read_text()


@pytest.mark.product
def test_a_cut_cable(run: SlurmRun, cluster: Cluster, undisturbed: list[float]) -> None:
    job = run.submit(_DEADLINE)
    run.wait_for_step(23)
    cluster.node("cut", 2)
    try:
        _wait_for_requeue(cluster, run, job, _FOUND_BY_SLURM_SECONDS)
        _assert_done(cluster, run, job, undisturbed)
    finally:
        cluster.node("join", 2)
    assert run.resumed_at()[0] in (20, 30)


@pytest.mark.product
def test_ranks_that_outlive_all_of_slurm_on_their_node_write_nothing_once_the_job_is_back(
    run: SlurmRun, cluster: Cluster, undisturbed: list[float]
) -> None:
    job = run.submit(_DEADLINE, options=("--nodes=1",), variables={"PARALLAX_NPROC": "2"})
    run.wait_for_step(13)
    assert cluster.show(job).batch_host == "node1"
    cluster.node("kill-slurmd", 1)
    orphans = cluster.processes(1, RANK)
    assert len(orphans) == 2
    _send(orphans, signal.SIGSTOP)  # They would be done before Slurm misses the daemon.
    for left in ("slurmstepd", "slurm_script", "srun"):  # What would end them with the job.
        _send(cluster.processes(1, left), signal.SIGKILL)
    _wait_for_requeue(cluster, run, job, _FOUND_BY_SLURM_SECONDS)
    cluster.wait_until(lambda: run.state() == f"running {job}.1", "the second attempt", 60.0, run.log)
    assert cluster.processes(1, RANK) == orphans
    _send(orphans, signal.SIGCONT)
    _assert_done(cluster, run, job, undisturbed)
    cluster.wait_until(lambda: not cluster.processes(1, RANK), "the end of the orphans", 60.0, run.log)
    cluster.node("start-slurmd", 1)
    assert [event["slurm"]["restart_count"] for event in run.events] == ["0", "1", "1"]
    assert run.losses == undisturbed
    assert run.state() == f"done {job}.1"


def _send(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)
