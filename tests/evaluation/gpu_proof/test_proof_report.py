"""The table and the file for programs hold every row, and the command's exit code says whether one failed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.gpu_proof import __main__ as command
from evaluation.gpu_proof.checks import CHECKS, Check
from evaluation.gpu_proof.report import count_verdicts, describe_machine, to_json, to_markdown, write_report
from evaluation.gpu_proof.rows import Row, equal, failed, impossible

ROWS = {
    CHECKS[0]: [equal("a | b", 1, 1), failed("worse", "line one\nline two")],
    CHECKS[1]: [impossible("two GPUs", "one is here"), Row("speed", "3 tokens/s")],
}


def test_the_markdown_table_has_a_whole_line_for_every_row() -> None:
    lines = to_markdown({"device": "a card"}, ROWS, 12.3).splitlines()
    assert "- device: a card" in lines
    assert "- 1 pass, 1 fail, 1 not possible here, 1 measured; 12 s" in lines
    assert "| a \\| b | 1 | 1 | pass |  |" in lines
    assert "| worse |  |  | **fail** | line one line two |" in lines
    assert "| two GPUs |  |  | not possible here | one is here |" in lines
    assert f"## {CHECKS[1].title}" in lines


def test_the_file_for_programs_gives_the_rows_back() -> None:
    content = json.loads(to_json({"device": "a card"}, ROWS, 12.3))
    assert content["machine"] == {"device": "a card"}
    assert content["counts"] == count_verdicts(ROWS)
    found = {name: [Row.from_dict(row) for row in rows] for name, rows in content["checks"].items()}
    assert found == {check.name: rows for check, rows in ROWS.items()}


def test_both_files_are_written_beside_each_other_under_the_name_given(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "card-1.2", {}, ROWS, 1.0)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["card-1.2.json", "card-1.2.md"]


def test_the_machine_is_named_with_its_torch() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert machine["torch"] == torch.__version__
    assert machine["device"]


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Row]]:
    """Check name -> the rows it will give; the files are looked at while the next check runs."""
    rows: dict[str, list[Row]] = {}

    def run_check(check: Check, *_: Any) -> Iterator[Row]:
        return iter(rows.get(check.name, [equal("fine", 1, 1)]))

    monkeypatch.setattr(command, "run_check", run_check)
    return rows


def test_every_check_runs_whatever_the_others_find_and_one_failure_decides_the_exit_code(
    fake_runs: dict[str, list[Row]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--device", "cpu", "--output", str(tmp_path / "proof")]
    assert command.main(arguments) == 0
    fake_runs["step"] = [failed("loss", "too far")]
    assert command.main(arguments) == 1
    content = json.loads((tmp_path / "proof.json").read_text())
    assert list(content["checks"]) == [check.name for check in CHECKS]
    assert "step: fail: loss: too far" in capsys.readouterr().out


def test_the_files_hold_what_is_done_when_a_run_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_check(check: Check, *_: Any) -> Iterator[Row]:
        if check.name == CHECKS[2].name:
            raise KeyboardInterrupt
        yield equal("fine", 1, 1)

    monkeypatch.setattr(command, "run_check", run_check)
    command.main(["--device", "cpu", "--output", str(tmp_path / "proof")])
    content = json.loads((tmp_path / "proof.json").read_text())
    assert list(content["checks"]) == [check.name for check in CHECKS[:2]]


def test_a_check_for_which_no_time_is_left_fails(fake_runs: dict[str, list[Row]], tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--output", str(tmp_path / "proof"), "--patience", "1e-9", "step"]
    assert command.main(arguments) == 1
    assert "no time left; --patience" in (tmp_path / "proof.md").read_text()


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 2
    assert "use runtime.device=cpu" in capsys.readouterr().err
    assert command.main(["--device", "cpu", "spede"]) == 2
    assert "CHECK spede: expected attention, " in capsys.readouterr().err
