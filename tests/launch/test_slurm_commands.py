"""Submitting and what comes after, with scripts in the place of Slurm's commands; see tests/slurm."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launched import CHECKOUT, environment
from stand_in_slurm import StandInSlurm

TINY = "configs/tiny.yaml"
CPU = "runtime.device=cpu"
BY_SLURM = (TINY, "--via", "slurm")


class Desk:
    """A place to submit from: a stand-in for Slurm, and a folder for jobs and runs."""

    def __init__(self, folder: Path) -> None:
        (folder / "bin").mkdir()
        self.slurm, self.logs, self.run = StandInSlurm(folder / "bin"), folder / "jobs", folder / "run"

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "launch", *arguments, "--logs", str(self.logs)]
        variables = environment(self.slurm.variables)
        return subprocess.run(command, env=variables, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)

    def succeed(self, *arguments: str) -> str:
        done = self.launch(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refuse(self, *arguments: str) -> str:
        done = self.launch(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
        return done.stderr

    def submit(self, *arguments: str) -> str:
        return self.succeed(*BY_SLURM, "--time", "1:00:00", f"run.dir={self.run}", CPU, *arguments)

    @property
    def folder(self) -> Path:
        """Of the only job."""
        [path] = self.logs.iterdir()
        return path

    def progress(self, run: Path, state: str, losses: list[float], job: str = "41") -> None:
        """Leaves what a run leaves in its folder."""
        run.mkdir(parents=True, exist_ok=True)
        (run / "state").write_text(f"{state} {job}.0\n")
        lines = [json.dumps({"step": 10 * n, "loss": x, "val_loss": x + 1}) for n, x in enumerate(losses, 1)]
        (run / "journal.jsonl").write_text("\n".join(lines) + '\n{"step": 99, "lo')


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


TIME = ("--time", "1:00:00")
MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((*BY_SLURM,), r"--time is missing; for example: --time 4:00:00"),
    ((*BY_SLURM, "--time", "4h"), r"--time 4h: expected minutes, H:MM:SS or D-HH:MM:SS"),
    ((*BY_SLURM, "--time", "3"), r"--time 00:03:00: the job is told to save up to 180 s before its end"),
    ((*BY_SLURM, *TIME, "--partition", "hgih"), r"--partition hgih: no such partition; did you mean high\?"),
    ((*BY_SLURM, *TIME, "--partition", "x"), r"no such partition; sinfo knows cpus, high, low"),
    (
        (*BY_SLURM, *TIME, "--gpus-per-node", "4"),
        r"--gpus-per-node 4: a node of partition low has 2 GPU\(s\); use --gpus-per-node 2",
    ),
    (
        (*BY_SLURM, *TIME, "--partition", "cpus"),
        r"--gpus-per-node 1: a node of partition cpus has no GPU\(s\); use another --partition, or run",
    ),
    ((*BY_SLURM, *TIME, "--after", "99", CPU), r"--after 99: Slurm knows no such job; those in the queue: 7"),
    ((*BY_SLURM, *TIME, "--after", "x"), r"--after x: expected a job's number, or afterany:NUMBER"),
    ((*BY_SLURM, *TIME, "--mem", "64 GB"), r"--mem 64 GB: expected megabytes"),
    ((*BY_SLURM, *TIME, "--nodes", "0"), r"--nodes 0: expected 1 or more"),
    ((*BY_SLURM, *TIME, "--profile", "exmaple"), r"--profile exmaple: no such .*; did you mean example\?"),
    (
        (*BY_SLURM, *TIME, "--template", "x"),
        r"template x cannot be read: No such file .*; name one with --template",
    ),
    ((*BY_SLURM, *TIME, "--master", "a:1"), r"--master is not for --via slurm"),
    ((*BY_SLURM, *TIME, "--at-once", "2"), r"--at-once is for a sweep; add --sweep"),
    ((*BY_SLURM, *TIME, "parallel.track=3"), r"track"),
    (
        ("configs/tinny.yaml", "--via", "slurm", *TIME),
        r"no such configuration file; did you mean configs/tiny.yaml",
    ),
    ((TINY, "--via", "torchrun", *TIME), r"--time is for --via slurm; leave it out, or add --via slurm"),
    (
        (*BY_SLURM, *TIME, CPU, "--sweep", "optim.lrr=1,2"),
        r"--sweep member 0 \(optim.lrr=1\): .*unknown key 'optim.lrr'; did you mean 'optim.lr'\?",
    ),
    (
        (*BY_SLURM, *TIME, CPU, "--sweep", "parallel.track=1,3"),
        r"--sweep member 1 \(parallel.track=3\): .*parallel.track=3",
    ),
    ((*BY_SLURM, *TIME, "--sweep", "seed=1,2", "seed=3,4"), r"--sweep seed is there twice; write its values once"),
    ((*BY_SLURM, *TIME, "--sweep", "seed=1,2", "seed=3"), r"--sweep seed is set by seed=… as well; remove one"),
    ((*BY_SLURM, *TIME, "--sweep", "seed=3"), r"--sweep has no key with several values"),
    ((*BY_SLURM, "seed=1", *TIME, "--sweep", "seed=1,2"), r"--sweep seed is set by seed=… as well; remove one"),
    ((*BY_SLURM, *TIME, "--sweep", "seed=1,1"), r"--sweep seed: the value 1 is there twice"),
    ((*BY_SLURM, *TIME, "--sweep", "seed"), r"--sweep 'seed': expected key=value,value"),
    ((*BY_SLURM, *TIME, "--members", "none.txt"), r"--members none.txt: cannot be read: .*No such file"),
    (
        (*BY_SLURM, *TIME, "--members", ".gitignore"),
        r"--members \.gitignore: expected lines of key=value …, found '",
    ),
    ((*BY_SLURM, *TIME, "--members", TINY, "--sweep", "seed=1,2"), r"--sweep and --members both say"),
    ((*BY_SLURM, *TIME, "--then", "x"), r"--then is for a sweep; add --sweep"),
    (
        (*BY_SLURM, *TIME, "--sweep", "run.dir=a,b", "seed=1"),
        r"--sweep run.dir: every member of a sweep has its own",
    ),
    (("status", "12"), r"12: no job or run that was submitted into .*jobs: none"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_at_submission(desk: Desk, arguments: tuple[str, ...], message: str) -> None:
    assert re.search(message, desk.refuse(*arguments))
    assert not desk.logs.exists()
    assert desk.slurm.told == []


def test_a_job_that_slurm_refuses_leaves_nothing_behind(desk: Desk) -> None:
    (desk.slurm.folder / "refusal").write_text("sbatch: error: QOSMaxNode\nallocation failure: Too many nodes\n")
    line = desk.refuse(*BY_SLURM, *TIME, CPU)
    assert "Slurm refuses the job: QOSMaxNode; allocation failure: Too many nodes" in line
    assert list(desk.logs.iterdir()) == []


def test_a_log_folder_that_cannot_be_written_to(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    assert re.search(
        r"log folder .*/jobs/tiny-.* cannot be made and written to .*--logs", desk.refuse(*BY_SLURM, *TIME, CPU)
    )


def test_without_slurm_a_dry_run_still_shows_the_job(desk: Desk) -> None:
    for name in ("sbatch", "sinfo", "scontrol"):
        (desk.slurm.folder / name).unlink()
    alone = {"PATH": f"{desk.slurm.folder}:/nowhere"}
    command = [sys.executable, "-m", "launch", *BY_SLURM, *TIME]
    options = {"cwd": CHECKOUT, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run([*command, "--dry-run"], env=environment() | alone, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert "script   #SBATCH --gpus-per-node=1" in done.stdout
    assert "warning  would not be submitted here: sbatch is not installed here" in done.stdout
    done = subprocess.run(command, env=environment() | alone, **options)  # type: ignore[call-overload]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: sbatch is not installed here; submit from a login node")


def test_a_submission_keeps_what_it_sent(desk: Desk) -> None:
    text = desk.submit("--nodes", "2", "--partition", "high", "parallel.track=2")
    assert "job      41\n" in text
    assert f"logs     {desk.folder}/tiny-41.out\n" in text
    assert f"python -m launch logs 41 -f --logs {desk.logs}\n" in text
    assert (desk.folder / "tiny.yaml").read_text() == (CHECKOUT / TINY).read_text()
    script = (desk.folder / "job.sbatch").read_text()
    assert "#SBATCH --nodes=2\n" in script
    assert f"export PARALLAX_RUN={desk.run}\n" in script
    sent = f"{desk.folder}/job.sbatch {desk.folder}/tiny.yaml {CPU} parallel.track=2"
    assert desk.slurm.told == [f"sbatch --test-only {sent}", f"sbatch --parsable {sent}"]


def test_status_of_a_job_that_slurm_knows_and_of_one_that_it_forgot(desk: Desk) -> None:
    desk.submit()
    desk.slurm.knows("41", "RUNNING")
    desk.progress(desk.run, "running", [3.0, 2.5])
    text = desk.succeed("status", "41")
    assert "slurm    RUNNING on n[1-2], 1 restart(s), 00:00:09 of 01:00:00\n" in text
    assert f"run      {desk.run}: running, step 20, loss 2.5000, best validation loss 3.5000\n" in text
    assert "next     python -m launch logs 41 -f" in text
    desk.slurm.forget()
    desk.progress(desk.run, "done", [3.0, 2.5])
    for word in ("41", str(desk.run), "run", desk.folder.name):
        text = desk.succeed("status", word)
        assert "slurm    forgotten" in text
        assert "next     nothing: it is done" in text


def test_status_tells_what_a_failed_run_failed_of(desk: Desk) -> None:
    desk.submit()
    desk.progress(desk.run, "failed", [])
    (desk.folder / "tiny-41.out").write_text("hello\nerror: step 2: NaN\nerror: later\n")
    text = desk.succeed("status", "41")
    assert "error    step 2: NaN\n" in text.replace("error     ", "error    ")
    assert "next     python -m launch resume 41" in text


def test_a_job_is_cancelled_and_resumed_for_the_same_run(desk: Desk) -> None:
    desk.submit("seed=5")
    desk.slurm.knows("41", "RUNNING")
    assert "job 41 still waits or runs; first: python -m launch cancel 41" in desk.refuse("resume", "41")
    assert "next     python -m launch resume 41" in desk.succeed("cancel", "41")
    assert desk.slurm.told[-1] == "scancel 41"
    desk.slurm.forget()
    assert "job 41 has ended; next: python -m launch resume 41" in desk.refuse("cancel", "41")
    desk.progress(desk.run, "stopped", [3.0])
    assert "job      42\n" in desk.succeed("resume", str(desk.run))
    sent = f"{desk.folder}/job.sbatch {desk.folder}/tiny.yaml {CPU} seed=5"
    assert desk.slurm.told[-1] == f"sbatch --parsable --dependency= {sent}"
    assert f"logs     {desk.folder}/tiny-42.out" in desk.succeed("status", "41")
    desk.progress(desk.run, "done", [3.0], job="42")
    assert f"{desk.run} is done" in desk.refuse("resume", "42")


def test_a_job_that_slurm_holds_is_let_go_by_resume(desk: Desk) -> None:
    desk.submit()
    desk.progress(desk.run, "stopped", [3.0])
    desk.slurm.knows("41", "PENDING", reason="launch_failed_requeued_held")
    status = desk.succeed("status", "41")
    assert "slurm    PENDING (launch_failed_requeued_held)" in status
    assert "next     python -m launch resume 41" in status
    assert "job      41 was held by Slurm and is let go\n" in desk.succeed("resume", "41")
    assert desk.slurm.told[-1] == "scontrol release 41"


def test_members_that_slurm_holds_are_let_go_one_by_one(desk: Desk) -> None:
    desk.submit("--sweep", "seed=1,2,3")
    desk.slurm.knows("41", "RUNNING", tasks="0")
    desk.slurm.knows("41", "PENDING", tasks="1-2", reason="JobHeldAdmin")
    assert "job      41_1, 41_2 was held" in desk.succeed("resume", "41")
    assert desk.slurm.told[-2:] == ["scontrol release 41_1", "scontrol release 41_2"]


def test_logs_are_followed_to_the_end_of_the_job(desk: Desk) -> None:
    desk.submit()
    assert "tiny-41.out is not there yet" in desk.succeed("logs", "41")
    log = desk.folder / "tiny-41.out"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert desk.succeed("logs", "41") == "".join(f"line {n}\n" for n in range(60, 100))
    desk.slurm.knows("41", "RUNNING")
    command = [sys.executable, "-m", "launch", "logs", "41", "-f", "--logs", str(desk.logs)]
    with subprocess.Popen(
        command, env=environment(desk.slurm.variables), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as following:
        try:
            assert following.stdout is not None
            for _ in range(40):
                following.stdout.readline()
            with log.open("a") as file:
                file.write("the last line\n")
            assert following.stdout.readline() == "the last line\n"
            desk.slurm.forget()
            assert following.wait(timeout=30) == 0
        finally:
            following.kill()


def test_a_sweep_is_an_array_with_a_comparison_after_it(desk: Desk) -> None:
    text = desk.submit("--at-once", "2", "--sweep", "seed=1,2", "model.num_loops=1,2,3")
    script = (desk.folder / "job.sbatch").read_text()
    assert "#SBATCH --array=0-5%2\n" in script
    assert f"export PARALLAX_SWEEP={desk.folder}/sweep.txt\n" in script
    lines = (desk.folder / "sweep.txt").read_text().splitlines()
    assert (len(lines), lines[4]) == (6, "seed=2 model.num_loops=2 run.name=tiny-4")
    assert not any("run.dir=" in line for line in desk.slurm.told), "it would be every member's"
    assert desk.slurm.told[-1] == f"sbatch --parsable --dependency=afterany:41 {desk.folder}/compare.sbatch"
    assert f"compare  job 42 writes {desk.folder}/comparison.txt" in text


def test_members_that_are_no_product_come_from_a_file(desk: Desk, tmp_path: Path) -> None:
    members = tmp_path / "members"
    members.write_text(f"seed=1 'sample.prompt=a b' run.dir={tmp_path}/own run.name=first\noptim.lr=1e-3\n")
    desk.submit("--members", str(members), "--then", "evaluation.study x.yaml")
    lines = (desk.folder / "sweep.txt").read_text().splitlines()
    assert lines == [members.read_text().splitlines()[0], "optim.lr=1e-3 run.name=tiny-1"]
    runs = json.loads((desk.folder / "submission.json").read_text())["runs"]
    assert runs[0] == f"{tmp_path}/own"
    assert runs[1].endswith("/1")
    assert (desk.folder / "compare.sbatch").read_text().endswith('"$PARALLAX_PYTHON" -m evaluation.study x.yaml\n')
    desk.progress(Path(runs[0]), "done", [3.0])
    rows = [line.split() for line in desk.succeed("compare", "41").splitlines()]
    assert rows[0][:5] == ["member", "seed", "sample.prompt", "optim.lr", "state"]
    assert rows[2][:5] == ["1", "-", "-", "1e-3", "none"]
    assert "best     member 0 (seed=1 sample.prompt=a b): 4.0000" in desk.succeed("compare", "41")


def test_a_sweep_is_compared_and_its_failed_members_told(desk: Desk) -> None:
    desk.submit("--sweep", "seed=1,2,3")
    [runs] = {
        line.split("=")[1] for line in (desk.folder / "job.sbatch").read_text().splitlines() if "RUN=" in line
    }
    members = [Path(runs.replace("$SLURM_ARRAY_TASK_ID", str(number))) for number in range(3)]
    desk.progress(members[0], "done", [3.0, 2.0, 2.5])
    desk.progress(members[1], "failed", [])
    (desk.folder / "tiny-sweep-41_1.out").write_text("error: no memory\n")
    desk.slurm.knows("41", "COMPLETED", "0")
    desk.slurm.knows("41", "FAILED", "1-2")
    text = desk.succeed("compare", "41")
    assert text == (desk.folder / "comparison.txt").read_text()
    rows = [line.split() for line in text.splitlines()]
    assert rows[1:4] == [
        ["0", "1", "done", "30", "3.5000", "3.0000"],
        ["1", "2", "failed", "0", "-", "-"],
        ["2", "3", "none", "0", "-", "-"],
    ]
    assert "best     member 0 (seed=1): 3.0000\n" in text
    assert "failed   member 1 (seed=2): no memory\n" in text
    table = json.loads((desk.folder / "comparison.json").read_text())
    assert [row["state"] for row in table] == ["done", "failed", "none"]
    assert table[0]["settings"] == {"seed": "1"}
    assert "name one, for example: python -m launch logs 41_0" in desk.refuse("logs", "41")
    assert desk.succeed("logs", "41_1") == "error: no memory\n"
    assert "41_3: the job has 3 members, from 0" in desk.refuse("logs", "41_3")
    desk.slurm.forget()
    desk.succeed("resume", "41")
    assert [line.split()[2] for line in desk.slurm.told[-2:]] == ["--dependency=", "--dependency=afterany:43"]
    assert "--array=1,2" in desk.slurm.told[-2]
    assert f"{desk.folder}/tiny-sweep-41_0.out" in desk.succeed("status", "41_0")
    assert f"{desk.folder}/tiny-sweep-43_1.out" in desk.succeed("status", "41_1")


def test_one_run_is_not_compared(desk: Desk) -> None:
    desk.submit()
    assert "job 41 is one run, not a sweep" in desk.refuse("compare", "41")
