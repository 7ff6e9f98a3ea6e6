import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evaluation.faults.network import Link

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Contender:
    """Processes that train the same batch in their own way."""

    name: str
    ranks: int = 1
    threads: int = 1
    """Of each process."""
    track: int = 1
    dp_shard: int = 1
    shared: str = "auto"
    overlap: bool = False


class Team:
    """A contender's running processes. They wait without using the processor until a step is asked for.

    Args:
        contender: what they are.
        common: settings of `evaluation.scaling.worker` that all contenders share.
        link: the second rank is behind it; None: all are on this host.
    """

    def __init__(self, contender: Contender, common: dict[str, Any], link: Link | None) -> None:
        self._contender, self._common, self._link = contender, common, link
        self._folder = tempfile.TemporaryDirectory()
        self._processes: list[subprocess.Popen[str]] = []
        self.sent_bytes = 0
        """What a rank sends in a step, by the ledger's formula; known once it is entered."""

    def __enter__(self) -> Self:
        for rank in range(self._contender.ranks):
            self._processes.append(self._start(rank))
        self.sent_bytes = max(answer["sent_bytes"] for answer in self._answers())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._folder.cleanup()

    def step(self) -> tuple[float, float]:
        """Seconds of a step and of its update, those of the slowest rank."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("step\n")
            process.stdin.flush()
        answers = self._answers()
        return max(answer["step"] for answer in answers), max(answer["update"] for answer in answers)

    def _start(self, rank: int) -> subprocess.Popen[str]:
        contender = self._contender
        settings = self._common | {
            "threads": contender.threads,
            "rank": rank,
            "world_size": contender.ranks,
            "store": str(Path(self._folder.name) / "store"),
            "track": contender.track,
            "dp_shard": contender.dp_shard,
            "shared": contender.shared,
            "overlap": contender.overlap,
        }
        environment = os.environ | {"OMP_NUM_THREADS": str(contender.threads)}
        command = [sys.executable, "-m", "evaluation.scaling.worker", json.dumps(settings)]
        if self._link is not None and contender.ranks > 1:
            environment["GLOO_SOCKET_IFNAME"] = self._link.there if rank else self._link.here
            command = ["ip", "netns", "exec", self._link.namespace, *command] if rank else command
        return subprocess.Popen(
            command, cwd=_ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _answers(self) -> list[Any]:
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"a process of {self._contender.name} has ended")
            answers.append(json.loads(line))
        return answers
