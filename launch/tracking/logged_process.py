import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class LoggedProcess:
    """A program that runs beside this one and says what it has to say in a file.

    It has a session of its own: the terminal's Ctrl-C is for the caller, who stops one program before the other.

    Args:
        log: appended to.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it left by itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def last_line(self) -> str:
        """The last of its log that says something."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def _launch(self, command: Sequence[Any], **options: Any) -> None:
        """Starts it; further options are those of `Popen`."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options
            )
