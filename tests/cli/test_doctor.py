"""What `parallax doctor` says of a whole machine and of broken parts."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from parallax.cli import doctor
from parallax.cli.doctor_checks import collectives, launchers, machine, surroundings
from parallax.cli.doctor_checks.finding import Finding, run_checks
from parallax.cli.main import main


def test_two_processes_really_meet_over_gloo() -> None:
    assert collectives.check_gloo(90) == [Finding("gloo", "ok", "two processes added their numbers")]


def test_a_wrong_interface_breaks_gloo_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    (found,) = collectives.check_gloo(90)
    assert found.state == "broken"
    assert "did not meet" not in found.text
    assert found.text.endswith("unset GLOO_SOCKET_IFNAME or name an interface that is up")


def test_processes_that_do_not_meet_are_ended_in_time() -> None:
    (found,) = collectives.check_gloo(0.01)
    assert found.text.startswith("two processes did not meet in 0.01 s")


def test_the_machine_lists_every_backend_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {"python", "torch", "memory", "cpu"} <= {finding.name for finding in machine.check_machine()}
    found = {finding.name: finding for finding in machine.check_attention()}
    assert found["softmax eager"].text == found["plla eager"].text == "available"
    assert found["plla attention"].text.startswith("chunked, first of triton, chunked, eager on ")
    assert found["plla triton"].state == found["softmax flash"].state == "note"


def test_a_backend_that_the_environment_asks_for_in_vain_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_PLLA_BACKEND", "tritn")
    found = {finding.name: finding for finding in machine.check_attention()}
    assert found["plla attention"].state == "broken"
    assert "did you mean 'triton'?" in found["plla attention"].text


def test_a_folder_that_takes_no_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = surroundings.check_folder("HF_HOME", tmp_path / "file" / "cache")
    assert (found.state, "cannot write: Not a directory" in found.text) == ("broken", True)


def test_launchers_beside_the_interpreter_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {finding.name: finding for finding in launchers.check_launchers(120)}
    assert found["launcher torchrun"] == Finding(
        "launcher torchrun", "ok", str(Path(sys.executable).parent / "torchrun")
    )
    assert found["launcher accelerate"].state == "ok"
    assert found["launcher srun"].text == "no Slurm on this machine"
    assert found["launcher local"].state == "ok"


def test_a_launcher_that_does_not_load_is_noted_with_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate" / "__init__.py").write_text("raise ImportError('made for another torch')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    found = {finding.name: finding for finding in launchers.check_launchers(120)}
    assert found["launcher accelerate"].state == "note"
    assert found["launcher accelerate"].text == "does not load: ImportError: made for another torch"


@pytest.mark.parametrize(("age", "stale"), [(3600, True), (0, False)])
def test_only_an_old_build_lock_is_stale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, age: int, stale: bool
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "py311_cpu" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    texts = [found.text for found in surroundings.check_compilers() if found.name == "stale build lock"]
    assert [text.endswith(f"rm {lock}") for text in texts] == [True] * stale


def test_a_check_that_hangs_or_raises_is_broken_and_hides_no_other() -> None:
    release = threading.Event()

    def hang() -> list[Finding]:
        release.wait(60)
        return []

    def fail() -> list[Finding]:
        raise ValueError("odd")

    found = run_checks([("a", hang), ("b", fail)], 1)
    release.set()
    assert [finding.text for finding in found] == ["no answer in 1 s", "the check failed: ValueError: odd"]


def test_a_check_that_compiles_gets_its_own_time() -> None:
    fine = Finding("slow", "ok", "compiled")

    def compile_something() -> list[Finding]:
        time.sleep(0.5)
        return [fine]

    assert run_checks([("slow", compile_something)], 0.01, {"slow": 60}) == [fine]


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("note", 0), ("broken", 1)])
def test_the_exit_code_tells_and_lines_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    monkeypatch.setattr(doctor, "_TIMEOUT_SECONDS", 120.0)
    monkeypatch.setattr(collectives, "check_gloo", lambda: [Finding("gloo", state, "word " * 40)])  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == code
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["healthy"] is (code == 0)
