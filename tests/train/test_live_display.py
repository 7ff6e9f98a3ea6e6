"""A run on a terminal of 80 columns, ended by Ctrl-C as a person would."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from tiny_runs import checkpoint_steps, tiny_config

from parallax.config.load import dump_config

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal with a command in it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.shown = ""
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.execvpe(command[0], command, environment)

    def read_until(self, text: str | None, within_seconds: float = 120.0) -> None:
        """Until the text is shown, or with None until the command has ended."""
        deadline = time.monotonic() + within_seconds
        while text is None or text not in self.shown:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} was not shown; shown was {self.shown[-2000:]!r}")
            if not select.select([self._descriptor], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # Linux says so when the other side has closed
                break
            if not data:
                break
            self.shown += data.decode(errors="replace")

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def exit_code(self) -> int:
        self.read_until(None)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def lines(self) -> list[str]:
        """Everything that was ever on a line, in the order of writing."""
        written = CONTROL.sub("", self.shown).replace("^C", "")  # which is the terminal's echo of the key
        return [line for line in re.split(r"[\r\n]+", written) if line.strip()]


@pytest.mark.slow
def test_progress_fits_80_columns_and_ctrl_c_saves_and_leaves(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    long = {"train.max_steps": 100_000, "train.eval_every": 20, "sample.every": 40, "optim.schedule": "constant"}
    config = tmp_path / "long.yaml"
    config.write_text(
        dump_config(tiny_config(settings({**long, "train.save_every": 0, "train.save_best": False})))
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    terminal = Terminal([sys.executable, "-m", "parallax.train", str(config)], environment)
    terminal.read_until("step     40")
    terminal.read_until("/100000", within_seconds=5)
    time.sleep(1.0)
    terminal.type(b"\x03")
    assert terminal.exit_code() == 130

    lines = terminal.lines()
    paths = [line for line in lines if str(tmp_path) in line]
    assert [line for line in lines if cell_len(line) > 80 and line not in paths] == []
    assert any(re.search(r"\d+/100000 .*loss \d\.\d+ .*tok/s.* eta \d+[hms]", line) for line in lines)
    assert any(re.fullmatch(r"step +20 .*val \d\.\d+.* eta .*", line.strip()) for line in lines)
    assert any(line.startswith("     | The ") for line in lines), "the sample"
    assert any(line.startswith("stopped after step") for line in lines)
    assert "Traceback" not in terminal.shown
    assert len(checkpoint_steps(tmp_path / "run")) == 1
