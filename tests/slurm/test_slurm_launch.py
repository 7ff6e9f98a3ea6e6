"""`python -m launch --via slurm` on a real cluster: submitted, looked at, cancelled, resumed, swept, compared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.slurm.cluster import CHECKOUT, Cluster
from evaluation.slurm.runs import CONFIG, STEPS, SlurmRun
from launch.__main__ import parse
from launch.slurm.submit import prepare


class Desk:
    """A place to submit from."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.cluster, self.logs = cluster, folder / "jobs"

    def launch(self, *arguments: str, code: int = 0) -> str:
        """`python -m launch`; what it printed."""
        command = [sys.executable, "-m", "launch", *arguments, "--logs", str(self.logs)]
        done = subprocess.run(
            command, env=self.cluster.environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self, *arguments: str) -> str:
        """The job's number."""
        text = self.launch(CONFIG, "--via", "slurm", "--time", "10", *arguments)
        return next(line.split()[1] for line in text.splitlines() if line.startswith("job "))

    @property
    def folder(self) -> Path:
        """Of the only job."""
        [path] = self.logs.iterdir()
        return path


@pytest.fixture
def desk(tmp_path: Path, cluster: Cluster) -> Desk:
    return Desk(tmp_path, cluster)


@pytest.mark.timeout(300)
def test_a_run_is_submitted_cancelled_and_resumed(
    desk: Desk, cluster: Cluster, tmp_path: Path, undisturbed: list[float]
) -> None:
    run = SlurmRun(tmp_path, cluster, mlflow=True)
    settings = [*run.settings, "parallel.track=2"]
    first = desk.submit(*settings, "--nodes", "2", "--gpus-per-node", "1", "--partition", "low")
    run.log = desk.folder / f"tiny-{first}.out"
    run.wait_for_step(15)
    assert f"logs     {run.log}" in desk.launch("status", first)
    assert "is cancelled" in desk.launch("cancel", first)
    cluster.finish(first, run.log)
    stopped_at = run.step
    assert stopped_at < STEPS
    assert "CANCELLED" in desk.launch("status", str(run.path))
    second = desk.launch("resume", first).split()[1]
    assert f"job {second} still waits or runs" in desk.launch("resume", first, code=2)
    assert f"{STEPS}/{STEPS}" in desk.launch("logs", first, "-f")
    ended = cluster.finish(second, run.log)
    assert ended.state == "COMPLETED"
    assert run.state() == f"done {second}.0"
    assert run.losses == undisturbed
    assert len(run.resumed_at()) == 1
    assert stopped_at - run.resumed_at()[0] <= 1
    assert "nothing: it is done" in desk.launch("status", second)


@pytest.mark.timeout(400)
def test_a_sweep_with_a_failing_member_is_compared(desk: Desk, cluster: Cluster, tmp_path: Path) -> None:
    run = SlurmRun(tmp_path, cluster, mlflow=True)
    settings = [*run.settings, "train.max_steps=10", "train.eval_every=5", f"run.dir={tmp_path}/member"]
    rates = "optim.lr=1e-3,2e-3,3e-3,1e30,4e-3,5e-3"
    job = desk.submit(*settings, "--at-once", "3", "--sweep", rates)
    cluster.wait_until(lambda: not cluster.call("squeue", "--noheader"), "an empty queue", 300.0, run.log)
    rows = json.loads((desk.folder / "comparison.json").read_text())
    assert [row["state"] for row in rows] == ["done"] * 3 + ["failed"] + ["done"] * 2
    assert [row["steps"] for row in rows if row["state"] == "done"] == [10] * 5
    assert len({row["final_val_loss"] for row in rows}) == 6
    text = (desk.folder / "comparison.txt").read_text()
    assert "failed   member 3 (optim.lr=1e30): step 2: the loss, the gradient norm or a weight is NaN" in text
    assert ": failed, step 1" in desk.launch("status", f"{job}_3")
    _check_children(run.uri, desk.folder)


def _check_children(uri: str, folder: Path) -> None:
    """All members are children of one run, in MLflow's eyes."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    [experiment] = [found for found in client.search_experiments() if found.name == "parallax"]
    runs = client.search_runs([experiment.experiment_id])
    parent = json.loads((folder / "sweep.mlflow.json").read_text())["run_id"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert len(runs) == 7
    assert sorted(run.info.run_name for run in children) == [f"tiny-{number}" for number in range(6)]
    assert sorted(run.info.status for run in children) == ["FAILED"] + ["FINISHED"] * 5


def test_mistakes_are_told_by_the_real_cluster(desk: Desk) -> None:
    way = (CONFIG, "--via", "slurm", "--time", "10", "runtime.device=cpu")
    assert "did you mean high?" in desk.launch(*way, "--partition", "hihg", code=2)
    assert "--after 999999: Slurm knows no such job" in desk.launch(*way, "--after", "999999", code=2)
    assert "Slurm refuses the job: " in desk.launch(*way, "--mem", "900T", code=2)
    gpus = (CONFIG, "--via", "slurm", "--time", "10", "--gpus-per-node", "4", "parallel.track=2")
    assert "a node of partition low has 2 GPU(s)" in desk.launch(*gpus, code=2)
    assert not desk.logs.exists() or list(desk.logs.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nodes", "512", "--gpus-per-node", "8"), "to start at"),
        (("--nodes", "1000", "--gpus-per-node", "8", "--cpus-per-rank", "12"), "to start at"),
        (("--nodes", "64", "--gpus-per-node", "8", "--partition", "high", "--sweep", "seed=1,2,3"), "to start at"),
        (("--nodes", "1001", "--gpus-per-node", "8"), "not available"),
        (("--nodes", "2", "--gpus-per-node", "9"), "Requested node configuration is not available"),
        (("--nodes", "2", "--gpus-per-node", "8", "--cpus-per-rank", "13"), "not available"),
        (("--nodes", "2", "--gpus-per-node", "8", "--mem", "2T"), "not available"),
        (("--nodes", "2", "--gpus-per-node", "8", "--partition", "none"), "invalid partition"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_thousand_planned_nodes_take_what_they_should(
    options: tuple[str, ...], words: str, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    ranks = int(options[1]) * int(options[3])
    settings = ["train.micro_batch=1", f"train.global_batch={ranks}"]
    script = tmp_path / "job.sbatch"
    script.write_text(prepare(parse([CONFIG, *settings, "--via", "slurm", "--time", "1-0", *options])).text)
    plan = [str(CHECKOUT / "slurm" / "sandbox" / "plan.sh"), "--nodes", "1000", "--cpus", "96", "--gpus", "8"]
    variables = {name: value for name, value in cluster.environment.items() if name != "SLURM_CONF"}
    done = subprocess.run([*plan, "--", str(script)], capture_output=True, text=True, timeout=60, env=variables)
    assert words in done.stdout + done.stderr
    assert (done.returncode == 0) == (words == "to start at")
