"""What slurm/train.sbatch asks of torchrun, and what it makes of the end; a script stands for Python."""

from pathlib import Path

import pytest

from evaluation.slurm.cluster import Cluster
from launch.slurm.cluster import JobFacts

_PYTHON = """#!/bin/sh
printf '%s\\n' "$@" > "$STAND_IN/arguments-$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
for word in "$@"; do case $word in run.dir=*) run=${word#run.dir=} ;; esac; done
mkdir -p "$run"
state=$(cat "$STAND_IN/state-${SLURM_RESTART_COUNT:-0}")
[ "$state" = none ] || echo "$state $SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" > "$run/state"
[ "$state" != running ] || sleep "$(cat "$STAND_IN/seconds")"
[ "$state" = done ]
"""


class StandIn:
    """A Python that leaves a run in the states it is given, one an attempt."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster, self.log = folder, cluster, folder / "job.log"
        self.python = folder / "python"
        self.python.write_text(_PYTHON)
        self.python.chmod(0o755)

    def submit(
        self,
        *arguments: str,
        states: list[str],
        options: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
    ) -> str:
        for number, state in enumerate(states):
            (self.folder / f"state-{number}").write_text(state)
        (self.folder / "seconds").write_text("0" if len(states) > 1 else "60")
        given = {"PARALLAX_PYTHON": str(self.python), "STAND_IN": str(self.folder)} | (variables or {})
        options = (f"--chdir={self.folder}", *options)
        return self.cluster.submit(*arguments, options=options, variables=given, log=self.log)

    def end(self, job: str) -> JobFacts:
        return self.cluster.finish(job, self.log, 60.0)

    def arguments(self, attempt: str) -> list[str]:
        return (self.folder / f"arguments-{attempt}").read_text().splitlines()


@pytest.fixture
def stand_in(cluster: Cluster, tmp_path: Path) -> StandIn:
    return StandIn(tmp_path, cluster)


def test_torchrun_is_told_where_and_the_run_where_to_live(stand_in: StandIn) -> None:
    job = stand_in.submit("x.yaml", "optim.lr=1e-3", states=["done"], options=("--job-name=lively",))
    ended = stand_in.end(job)
    log = stand_in.log.read_text()
    assert (ended.state, ended.exit_code) == ("COMPLETED", "0:0"), log
    arguments = stand_in.arguments(f"{job}.0")
    program = arguments.index("parallax.train")
    assert arguments[program + 1 :] == ["x.yaml", "optim.lr=1e-3", f"run.dir=runs/lively-{job}"]
    assert f"--rdzv-id={job}.0" in arguments
    [endpoint] = [word for word in arguments if word.startswith("--rdzv-endpoint=")]
    address, port = endpoint.removeprefix("--rdzv-endpoint=").split(":")
    assert address.endswith(".11"), "the address of node1, not its name"
    assert int(port) == 20000 + int(job) % 20000
    assert "2 processors a node, OMP_NUM_THREADS=1" in log


def test_the_environment_overrides_ranks_address_port_and_run(stand_in: StandIn) -> None:
    given = {"PARALLAX_NPROC": "3", "PARALLAX_HEAD": "ib7", "PARALLAX_PORT": "4711", "PARALLAX_RUN": "runs/mine"}
    job = stand_in.submit("x.yaml", states=["done"], variables=given)
    assert stand_in.end(job).state == "COMPLETED", stand_in.log.read_text()
    arguments = stand_in.arguments(f"{job}.0")
    assert {"--nproc-per-node=3", "--rdzv-endpoint=ib7:4711", "run.dir=runs/mine"} <= set(arguments)
    job = stand_in.submit("x.yaml", "run.dir=elsewhere", states=["done"], variables=given)
    assert stand_in.end(job).state == "COMPLETED", stand_in.log.read_text()
    assert stand_in.arguments(f"{job}.0")[-1] == "run.dir=elsewhere"


def test_gpus_on_the_node_are_the_ranks(stand_in: StandIn) -> None:
    job = stand_in.submit("x.yaml", states=["done"], options=("--gpus-per-node=2",))
    assert stand_in.end(job).state == "COMPLETED", stand_in.log.read_text()
    assert "--nproc-per-node=2" in stand_in.arguments(f"{job}.0")


@pytest.mark.parametrize("first", ["stopped", "lost", "running"])
def test_a_run_that_is_not_done_comes_back(first: str, stand_in: StandIn) -> None:
    job = stand_in.submit("x.yaml", states=[first, "done"])
    ended = stand_in.end(job)
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), stand_in.log.read_text()
    before, after = stand_in.arguments(f"{job}.0"), stand_in.arguments(f"{job}.1")
    assert before[-1] == after[-1] == f"run.dir=runs/train-{job}"
    assert f"--rdzv-id={job}.1" in after


def test_an_attempt_that_ends_before_it_claims_the_run_is_made_again(stand_in: StandIn) -> None:
    job = stand_in.submit("x.yaml", states=["lost", "none", "done"])
    ended = stand_in.end(job)
    assert (ended.state, ended.restarts) == ("COMPLETED", 2), stand_in.log.read_text()


@pytest.mark.parametrize("state", ["failed", "none"])
def test_a_run_that_failed_or_never_began_does_not(state: str, stand_in: StandIn) -> None:
    ended = stand_in.end(stand_in.submit("x.yaml", states=[state]))
    assert (ended.state, ended.exit_code, ended.restarts) == ("FAILED", "1:0", 0), stand_in.log.read_text()


def test_the_restarts_are_counted(stand_in: StandIn) -> None:
    job = stand_in.submit("x.yaml", states=["stopped", "stopped", "done"], variables={"PARALLAX_RESTARTS": "1"})
    ended = stand_in.end(job)
    assert (ended.state, ended.restarts) == ("FAILED", 1)
    assert f"the same command with run.dir=runs/train-{job}" in stand_in.log.read_text()


def test_a_cancelled_job_stays_cancelled(stand_in: StandIn, cluster: Cluster) -> None:
    job = stand_in.submit("x.yaml", states=["running"])
    started = stand_in.folder / f"arguments-{job}.0"
    cluster.wait_until(started.exists, "the start", 30.0, stand_in.log)
    cluster.call("scancel", job)
    ended = stand_in.end(job)
    assert (ended.state, ended.restarts) == ("CANCELLED", 0), stand_in.log.read_text()


def test_a_job_that_is_asked_to_leave_before_the_run_began_comes_back(stand_in: StandIn, cluster: Cluster) -> None:
    stand_in.python.write_text(_PYTHON.replace('[ "$state" = done ]', 'sleep 4; [ "$state" = done ]'))
    job = stand_in.submit("x.yaml", states=["none", "done"])
    started = stand_in.folder / f"arguments-{job}.0"
    cluster.wait_until(started.exists, "the start", 30.0, stand_in.log)
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    ended = stand_in.end(job)
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), stand_in.log.read_text()


def test_array_members_take_their_line_of_the_sweep_and_a_run_folder_each(
    stand_in: StandIn, cluster: Cluster
) -> None:
    sweep = stand_in.folder / "sweep.txt"
    sweep.write_text("optim.lr=1e-3 model.num_loops=1\nrun.name='two words' data.path=$HOME\n")
    job = stand_in.submit(
        "x.yaml", states=["done"], options=("--array=0-2",), variables={"PARALLAX_SWEEP": str(sweep)}
    )
    cluster.wait_until(lambda: not cluster.call("squeue", "--noheader"), "an empty queue", 60.0, stand_in.log)
    found = {}
    for path in stand_in.folder.glob("arguments-*"):
        words = path.read_text().splitlines()
        found[words[-1]] = words[words.index("x.yaml") + 1 : -1]
    assert found == {
        f"run.dir=runs/train-{job}_0": ["optim.lr=1e-3", "model.num_loops=1"],
        f"run.dir=runs/train-{job}_1": ["run.name=two words", "data.path=$HOME"],
    }
    assert "sweep.txt has no line 2 (they count from 0)" in stand_in.log.read_text()
