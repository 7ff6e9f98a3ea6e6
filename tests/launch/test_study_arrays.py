"""A study by Slurm, with scripts in the place of Slurm's commands: one array a stage, and nothing twice."""

import json
from pathlib import Path

import pytest
from stand_in_slurm import StandInSlurm

from evaluation.study.command import main
from evaluation.study.plan import PlannedRun
from evaluation.study.study import open_study
from parallax.config.yaml_strict import format_yaml
from parallax.data.prepare import prepare

OPTIONS = ("--via", "slurm", "--", "--time", "1:00:00", "--partition", "low", "--at-once", "4")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInSlurm:
    (tmp_path / "bin").mkdir()
    stand_in = StandInSlurm(tmp_path / "bin")
    for name, value in stand_in.variables.items():
        monkeypatch.setenv(name, value)
    return stand_in


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "t.txt").write_text("".join(f"line {n} says {n * n}.\n" for n in range(200)))
    prepare(str(tmp_path / "t.txt"), tmp_path / "corpus", val_fraction=0.2, num_workers=1)
    model = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "vocab_size": 257, "max_seq_len": 16}
    base = {
        "model": model,
        "data": {"path": str(tmp_path / "corpus")},
        "train": {"max_steps": 6},
        "runtime": {"device": "cpu"},
    }
    design = {
        "title": "Small",
        "question": "Does it work?",
        "base": "base.yaml",
        "seeds": [0, 1, 2, 3, 4],
        "tuning": {"rates": [1e-3, 3e-3], "seeds": [0]},
        "arms": {"swap": {"model.use_swap": True}, "self": {"model.use_swap": False}},
        "reference": "swap",
        "comparisons": [["swap", "self"]],
        "power": {"smallest_effect": 0.1, "paired_sd": 0.05, "source": "assumed"},
    }
    (tmp_path / "base.yaml").write_text(format_yaml(base))
    (tmp_path / "small.yaml").write_text(format_yaml(design))
    return tmp_path / "small.yaml"


def finish(runs: list[PlannedRun], loss: float = 3.0) -> None:
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        line = {"step": 6, "seconds": 1.0, "val_loss": loss + run.rate}
        (run.folder / "journal.jsonl").write_text(json.dumps(line) + "\n")
        (run.folder / "state").write_text("done 41.0\n")


def test_each_stage_is_one_array_and_the_next_call_goes_on(
    file: Path, tmp_path: Path, slurm: StandInSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(file), "--output", str(tmp_path / "out"), *OPTIONS]
    assert main(words) == 0
    assert "sweep    4 members, 4 at once" in capsys.readouterr().out
    [script] = (tmp_path / "out" / "slurm").glob("*/job.sbatch")
    assert "#SBATCH --array=0-3%4\n" in script.read_text()
    study = open_study(file, tmp_path / "out")
    tuning = study.tuning()
    lines = (script.parent / "sweep.txt").read_text().splitlines()
    assert [f"run.dir={run.folder}" in line for run, line in zip(tuning, lines, strict=True)] == [True] * 4
    assert "run.name=swap-lr0.001-seed0" in lines[0]
    record = json.loads((script.parent / "submission.json").read_text())
    assert record["runs"] == [str(run.folder) for run in tuning]
    after = (script.parent / "compare.sbatch").read_text().splitlines()[-1]
    assert after.startswith(
        f'"$PARALLAX_PYTHON" -m evaluation.study {file} --output {tmp_path}/out --via slurm --fr'
    )
    assert after.endswith("-- --time 1:00:00 --partition low --at-once 4")

    slurm.knows("41", "RUNNING", "0-3")
    told = len(slurm.told)
    assert main(words) == 0
    assert "waits    4 of 4 runs of the tuning stage are with Slurm" in capsys.readouterr().out
    assert len(slurm.told) == told, "nothing is submitted twice"

    slurm.forget()
    finish(tuning)
    assert main(words) == 0
    assert "tuned    swap: rate 0.001" in capsys.readouterr().out
    [script] = (tmp_path / "out" / "slurm").glob("small-seeds*/job.sbatch")
    lines = (script.parent / "sweep.txt").read_text().splitlines()
    # Four seeds of two arms: the first seed was trained while tuning.
    assert ("#SBATCH --array=0-7%4\n" in script.read_text(), len(lines)) == (True, 8)
    assert all("optim.lr=0.001 " in line for line in lines)


def test_the_job_that_goes_on_submits_nothing_a_second_time(
    file: Path, tmp_path: Path, slurm: StandInSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(file), "--output", str(tmp_path / "out")]
    assert main([*words, *OPTIONS]) == 0
    runs = open_study(file, tmp_path / "out").tuning()
    finish(runs[1:])
    runs[0].folder.mkdir(parents=True)
    (runs[0].folder / "state").write_text("failed 41.0\n")
    [folder] = (tmp_path / "out" / "slurm").glob("small-*")
    (folder / "small-tuning-sweep-41_0.out").write_text("error: no memory\n")
    told = len(slurm.told)
    assert main([*words, "--from-job", *OPTIONS]) == 2
    assert f"1 of 4 runs of the tuning stage have not reached their end; {runs[0].folder.name}: no memory" in (
        capsys.readouterr().err
    )
    assert len(slurm.told) == told
    assert main([*words, *OPTIONS]) == 0
    [script] = [path for path in folder.parent.glob("*/job.sbatch") if path.parent != folder]
    assert "#SBATCH --array=0-0%4\n" in script.read_text()


def test_a_dry_run_prints_the_arrays_and_writes_nothing(
    file: Path, tmp_path: Path, slurm: StandInSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file), "--output", str(tmp_path / "out"), "--dry-run", *OPTIONS]) == 0
    shown = capsys.readouterr().out
    assert "script   #SBATCH --array=0-3%4\n" in shown
    assert "then     an array of 8 runs, seeds 0, 1, 2, 3, 4, at the tuned rates" in shown
    assert not (tmp_path / "out").exists()
    assert slurm.told == []


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (("--tmie", "1"), "unrecognized arguments: --tmie"),
        (("--time", "1", "seed=1"), "seed=1 behind --: only options of Slurm stand there"),
        (("--time", "1", "--sweep", "seed=1,2"), "--sweep is set by the study itself; take it out"),
        ((), "--time is missing"),
    ],
)
def test_mistakes_in_slurms_options_are_told(
    file: Path, slurm: StandInSlurm, capsys: pytest.CaptureFixture[str], behind: tuple[str, ...], words: str
) -> None:
    assert main([str(file), "--via", "slurm", "--dry-run", "--", *behind]) == 2
    assert words in capsys.readouterr().err
