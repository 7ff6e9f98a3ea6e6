"""A job that is signalled, requeued or preempted goes on where it was, as one run."""

from pathlib import Path
from random import Random

import pytest
from mlflow import MlflowClient

from evaluation.slurm.cluster import Cluster
from evaluation.slurm.disturb import Fault, preempt_job, requeue_job, signal_job
from evaluation.slurm.runs import STEPS, SlurmRun


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("disturb", "mlflow"),
    [(signal_job, True), pytest.param(requeue_job, True, marks=pytest.mark.product), (preempt_job, False)],
    ids=["signal", "requeue", "preemption"],
)
def test_a_disturbed_job_goes_on_where_it_was(
    disturb: Fault, mlflow: bool, cluster: Cluster, undisturbed: list[float], tmp_path: Path
) -> None:
    run = SlurmRun(tmp_path, cluster, mlflow=mlflow)
    job = run.submit()
    run.wait_for_step(13)
    seen = run.step
    disturb(cluster, run, job, Random(0))
    ended = cluster.finish(job, run.log)
    log = run.log.read_text()
    assert (ended.state, ended.exit_code, ended.restarts) == ("COMPLETED", "0:0", 1), log

    [resumed] = run.resumed_at()
    stopped = next(event for event in run.events if event["event"] == "end")
    assert stopped["status"] == "KILLED"
    assert seen <= resumed == stopped["step"] < STEPS
    assert run.losses == undisturbed
    assert run.state() == f"done {job}.1"
    if mlflow:
        _assert_one_finished_mlflow_run(run)


def _assert_one_finished_mlflow_run(run: SlurmRun) -> None:
    client = MlflowClient(run.uri)
    [tracked] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert tracked.info.status == "FINISHED"
    history = client.get_metric_history(tracked.info.run_id, "loss")
    assert [point.step for point in history] == list(range(1, STEPS + 1))
    assert [point.value for point in history] == run.losses
    assert tracked.data.tags["slurm.restart_count"] == "1"
