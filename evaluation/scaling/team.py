import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from evaluation.faults.network import Link
from evaluation.scaling.contenders import Contender

_ROOT = Path(__file__).parents[2]


class Step(NamedTuple):
    """What a step took, in seconds, on the rank where it took longest."""

    step: float
    update: float
    """Norm, clipping and optimizer, part of the step."""
    wait: float
    """For collectives of forward and backward, part of the step."""
    sent_bytes: int
    """By the rank that sends most."""


class Team:
    """A contender's running processes. They wait without using the processor until a step is asked for.

    Args:
        contender: what they are.
        common: settings of `evaluation.scaling.worker` that all contenders share.
        link: the second half of the ranks is behind it; None: all are on this host.
    """

    def __init__(self, contender: Contender, common: dict[str, Any], link: Link | None) -> None:
        self._contender, self._common, self._link = contender, common, link
        self._folder = tempfile.TemporaryDirectory()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for rank in range(self._contender.ranks):
            self._processes.append(self._start(rank))
        self._answers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._folder.cleanup()

    def step(self, rows: int) -> Step:
        """Lets all train a step over so many rows of the batch."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{rows}\n")
            process.stdin.flush()
        answers = self._answers()
        slowest = max(answers, key=lambda answer: answer["step"])
        sent = max(answer["sent_bytes"] for answer in answers)
        return Step(slowest["step"], slowest["update"], slowest["wait"], sent)

    def _start(self, rank: int) -> subprocess.Popen[str]:
        contender = self._contender
        settings = {
            **self._common,
            **asdict(contender),
            "rank": rank,
            "world_size": contender.ranks,
            "store": str(Path(self._folder.name) / "store"),
        }
        environment = os.environ | {"OMP_NUM_THREADS": str(contender.threads)}
        command = [sys.executable, "-m", "evaluation.scaling.worker", json.dumps(settings)]
        if self._link is not None and contender.ranks > 1:
            is_far = rank >= contender.ranks // 2
            environment["GLOO_SOCKET_IFNAME"] = self._link.there if is_far else self._link.here
            command = ["ip", "netns", "exec", self._link.namespace, *command] if is_far else command
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
