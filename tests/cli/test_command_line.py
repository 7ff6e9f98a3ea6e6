"""The command itself: help, version, and mistakes in how it is called."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_world import Parallax

COMMANDS = ["train", "init", "data", "generate", "eval", "curve", "checkpoint", "keys", "demo"]


def test_help_lists_every_command_with_a_line_that_is_not_cut(parallax: Parallax) -> None:
    answer = parallax("--help")
    assert (answer.code, answer.err) == (0, "")
    for command in COMMANDS:
        [line] = [line for line in answer.out.splitlines() if line.split()[:1] == [command]]
        assert line.rstrip().endswith(".")
        assert len(line) <= 80


def test_without_arguments_the_help_is_shown(parallax: Parallax) -> None:
    assert parallax().out == parallax("--help").out


@pytest.mark.parametrize("command", [*COMMANDS, "data prepare", "checkpoint convert"])
def test_every_command_has_its_own_help(command: str, parallax: Parallax) -> None:
    answer = parallax(*command.split(), "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: parallax {command}")


def test_the_version_is_that_of_the_package(parallax: Parallax) -> None:
    import parallax as package

    assert parallax("--version").out == f"parallax {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'config'"),
        (["eval", "run", "--dat", "corpus"], "No such option: --dat"),
        (["eval", "run", "--batch-size", "many"], "Invalid value for '--batch-size'"),
        (["eval", "run", "--batch-size", "0"], "greater than or equal to 1"),
        (["generate", "run", "--num-samples", "0"], "greater than or equal to 1"),
        (["data", "prepare", "--output", "x"], "Missing option '--input'"),
        (["data", "prepare", "--input", "prose.txt"], "Missing option '--output'"),
        (["data"], "Missing command"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line_that_says_where_the_help_is(
    arguments: list[str], said: str, parallax: Parallax
) -> None:
    answer = parallax(*arguments)
    assert (answer.code, answer.out) == (2, "")
    [line] = answer.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert "--help" in line


def test_the_console_script_and_the_module_are_the_same_command(
    environment: dict[str, str], tmp_path: Path
) -> None:
    script = Path(sys.executable).with_name("parallax")
    answers = [
        subprocess.run(
            [*command, "eval", "nowhere"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        for command in ([str(script)], [sys.executable, "-m", "parallax.cli"])
    ]
    assert [(a.returncode, a.stdout, a.stderr) for a in answers] == [
        (2, "", "error: nowhere: no such checkpoint or run folder\n")
    ] * 2


def test_asking_for_help_loads_no_torch() -> None:
    program = (
        "import sys; from parallax.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == "False\n"


def test_keys_are_listed_with_their_defaults_and_found_by_a_part_of_their_name(parallax: Parallax) -> None:
    everything, some = parallax("keys"), parallax("keys", "warmup")
    assert "optim.lr: " in everything.out
    assert some.out.splitlines()[0].startswith("optim.warmup_steps: ")
    assert "optim.lr: " not in some.out
    assert parallax("keys", "nonsense").err == "error: no key contains 'nonsense'; parallax keys lists all\n"
