"""What a job's script says, and the shell's opinion of it."""

import subprocess
from pathlib import Path

import pytest
from job_cases import CASES, GOLDEN, TEMPLATE, JobCase, text_of
from plan_cases import CHECKOUT

from launch.slurm.job import job_name
from launch.slurm.limits import format_time, parse_time
from launch.slurm.profile import Profile, load_profile
from launch.slurm.sweep import expand_tasks, parse_sweep, split_sweep, split_values, sweep_lines
from launch.slurm.template import read_template
from parallax.errors import ConfigError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_job_is_the_one_on_file(case: JobCase) -> None:
    # After a change that is meant: python tests/launch/job_cases.py
    assert text_of(case) == (GOLDEN / f"{case.name}.sbatch").read_text(encoding="utf-8")


def test_every_golden_job_is_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {case.name for case in CASES}


def test_the_shell_gives_the_script_its_variables() -> None:
    case = next(case for case in CASES if case.name == "sweep")
    done = subprocess.run(
        ["bash", "-c", text_of(case), "job", "x.yaml", "a b"],
        capture_output=True,
        text=True,
        timeout=30,
        env={"SLURM_ARRAY_TASK_ID": "4", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "/work/venv/bin/python 2 x.yaml a b run.dir=runs/tiny-sweep-x/4\n", done.stderr


def test_the_project_s_own_template_can_be_filled() -> None:
    template = read_template(str(CHECKOUT / "slurm" / "train.sbatch"))
    assert template.signal_seconds == 120
    text = template.fill(["#SBATCH --nodes=7"], ["export A=1"])
    assert "#SBATCH --nodes=7\n# <<< resources" in text
    assert "#SBATCH --nodes=1" not in text
    assert "# >>> site\nexport A=1\n# <<< site" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("# >>> resources", r"has no line '# >>> resources'; expected one, as in slurm/train.sbatch"),
        ("# <<< site", r"has no line '# <<< site'"),
        ("echo", r"does not use PARALLAX_PYTHON"),
    ],
)
def test_a_template_without_a_field_is_refused(tmp_path: Path, line: str, message: str) -> None:
    kept = [text for text in TEMPLATE.read_text().splitlines() if not text.startswith(line)]
    (tmp_path / "x.sbatch").write_text("\n".join(kept))
    with pytest.raises(ConfigError, match=message):
        read_template(str(tmp_path / "x.sbatch"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("24:00", 1440),
        ("4:00:00", 14400),
        ("1-0", 86400),
        ("1-2:30", 95400),
        ("2-00:00:05", 172805),
    ],
)
def test_times_are_slurm_s(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds
    assert parse_time(format_time(seconds)) == seconds


@pytest.mark.parametrize("text", ["4h", "", "0", "1:2:3:4", "1-", "-5"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--time .*: expected"):
        parse_time(text)


def test_a_sweep_is_every_combination() -> None:
    members = parse_sweep(["model.num_loops=1,2,3", "optim.lr=1e-3,3e-4"], ["seed=1"])
    assert len(set(members)) == 6
    assert members[1] == ("model.num_loops=1", "optim.lr=3e-4")
    assert sweep_lines([("a=b c",), ("a='",)], "x") == "'a=b c' run.name=x-0\n'a='\"'\"'' run.name=x-1\n"


def test_what_has_one_value_is_no_part_of_a_sweep() -> None:
    assert split_sweep(["a=1,2", "b=[1,2]", "c"]) == (["a=1,2", "c"], ["b=[1,2]"])


def test_commas_inside_brackets_and_quotes_belong_to_a_value() -> None:
    assert split_values("[0.9,0.95],[0.8,0.9]") == ["[0.9,0.95]", "[0.8,0.9]"]
    assert split_values("'a,b',c") == ["'a,b'", "c"]


def test_tasks_of_an_array_are_read_as_slurm_writes_them() -> None:
    assert expand_tasks("0-2,5,8-12:2%4") == [0, 1, 2, 5, 8, 10, 12]
    assert expand_tasks("") == []


def test_the_example_profile_holds() -> None:
    profile = load_profile(str(CHECKOUT / "slurm" / "profiles" / "example.yaml"))
    assert (profile.partition, profile.time, profile.network_interface) == ("gpu", "24:00:00", "ib0")
    text = (CHECKOUT / "slurm" / "profiles" / "example.yaml").read_text()
    assert [key for key in Profile.model_fields if f"{key}:" not in text] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitoin: gpu", r"x.yaml: unknown key 'partitoin'; did you mean 'partition'\?"),
        ("zzz: 1", r"unknown key 'zzz'; known here: partition, account"),
        ("gpus_per_node: many", r"gpus_per_node='many': input should be a valid integer"),
        ("- a", r"x.yaml: expected keys such as partition"),
    ],
)
def test_a_mistake_in_a_profile_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_profile(str(tmp_path / "x.yaml"))


def test_a_job_s_name_can_be_a_part_of_a_file_s() -> None:
    assert job_name("my run %j, 2") == "my-run-j-2"
