"""The lock around the compilation of DeepSpeed's operators, with one that takes PyTorch's lock as all do."""

import multiprocessing
import os
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

from parallax.errors import BackendError
from parallax.parallel.deepspeed.operators import load_operator

_PROCESSES = multiprocessing.get_context("fork")
_SECONDS = 60.0


class Operator:
    """Builds as `torch.utils.cpp_extension.load` does: whoever finds a lock file waits until it is gone."""

    name = "some_operator"

    def __init__(self, folder: Path, hold: Event | None = None, begun: Event | None = None) -> None:
        self._folder, self._hold, self._begun = folder, hold, begun

    def load(self, verbose: bool) -> None:
        baton = FileBaton(str(self._folder / "lock"), wait_seconds=0.01)
        if not baton.try_acquire():
            baton.wait()
            return
        if self._begun is not None and self._hold is not None:
            self._begun.set()
            self._hold.wait(_SECONDS)
        (self._folder / f"{self.name}.so").touch()
        baton.release()


class Uncompilable(Operator):
    def load(self, verbose: bool) -> None:
        raise RuntimeError("Ninja is required to load C++ extensions\nand a second line")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / Operator.name).mkdir()
    return tmp_path / Operator.name


def load_in_a_process(folder: Path) -> int | None:
    """The exit code; None: it had to be ended because it waited."""
    process = _PROCESSES.Process(target=load_operator, args=(Operator(folder), print))
    process.start()
    process.join(_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def test_a_lock_that_a_killed_build_left_is_removed_and_said(folder: Path) -> None:
    (folder / "lock").touch()
    told: list[str] = []
    load_operator(Operator(folder), told.append)
    assert "removed" in told[0]
    assert str(folder / "lock") in told[0]
    assert "compiling" in told[1]
    assert "once" in told[1]
    assert (folder / "some_operator.so").exists()


def test_what_is_compiled_is_loaded_in_silence(folder: Path) -> None:
    load_operator(Operator(folder), lambda _: None)
    told: list[str] = []
    load_operator(Operator(folder), told.append)
    assert told == []


def test_a_build_that_is_killed_does_not_stop_the_next(folder: Path) -> None:
    begun, hold = _PROCESSES.Event(), _PROCESSES.Event()
    builder = _PROCESSES.Process(target=load_operator, args=(Operator(folder, hold, begun), print))
    builder.start()
    assert begun.wait(_SECONDS)
    builder.kill()
    builder.join()
    assert (folder / "lock").exists()
    assert load_in_a_process(folder) == 0


def test_the_lock_of_a_build_that_runs_is_left_alone_and_waited_for(folder: Path) -> None:
    begun, hold = _PROCESSES.Event(), _PROCESSES.Event()
    builder = _PROCESSES.Process(target=load_operator, args=(Operator(folder, hold, begun), print))
    builder.start()
    assert begun.wait(_SECONDS)
    said = folder.parent / "said"
    waiting = _PROCESSES.Process(
        target=load_operator, args=(Operator(folder), lambda text: said.write_text(text) and None)
    )
    waiting.start()
    deadline = time.monotonic() + _SECONDS
    while not said.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "waiting for another process that compiles" in said.read_text()
    assert (folder / "lock").exists()
    hold.set()
    for process in (builder, waiting):
        process.join(_SECONDS)
        assert process.exitcode == 0


def test_ninja_is_found_beside_the_interpreter_in_an_environment_that_is_not_activated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    load_operator(Operator(folder), lambda _: None)
    assert os.environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/nowhere"]


def test_an_operator_that_cannot_be_compiled_is_one_line_with_the_way_out(folder: Path) -> None:
    with pytest.raises(
        BackendError, match=r"some_operator .*Ninja is required.*offload_optimizer=false"
    ) as caught:
        load_operator(Uncompilable(folder), lambda _: None)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []
