import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from types import TracebackType
from typing import Any, Self

from torch._C._distributed_c10d import TCPStore

from evaluation.faults.worker import Arms, Left, Setup, run_rank

_START_SECONDS = 120.0


@dataclass(frozen=True)
class End:
    """How the processes of a trial ended."""

    seconds: float
    """From the fault until the last was gone; infinite: not all went."""
    codes: list[int | None]
    """Exit codes by rank; negative: killed by that signal."""


class Trial:
    """Real processes that train a small model, on which faults and signals are let loose.

    Raises:
        AssertionError: a process did not do in time what it was to do.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        context = multiprocessing.get_context("forkserver")
        # torch is loaded once, by the server that the ranks are forked from.
        context.set_forkserver_preload(["evaluation.faults.worker"])
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._pipes, self._processes = [], []
        for rank in range(setup.layout.world_size):
            here, there = context.Pipe()
            process = context.Process(target=run_rank, args=(setup, rank, self._store.port, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> Self:
        for rank in range(len(self._pipes)):
            assert self._receive(rank) == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def train(self) -> Self:
        """Lets all train until a signal comes."""
        self._tell("train")
        return self

    def compare_steps(self, steps: int) -> Arms:
        """Seconds on rank 0 of as many steps with the agreement, without, and again without, in turns."""
        self._tell(steps)
        first, *_ = [self._next(rank, tuple) for rank in range(len(self._pipes))]
        return first

    def signal_round(self, victim: int, number: signal.Signals, delay_seconds: float) -> list[Left]:
        """Lets all train, signals one of them, and returns how each left."""
        self.train()
        time.sleep(delay_seconds)
        self._send(victim, number)
        return [self._next(rank, Left) for rank in range(len(self._pipes))]

    def wait_for_step(self, step: int) -> None:
        """Until the victim has made that many."""
        while self._next(self.setup.victim, int) < step:
            pass

    def wait_for_parked(self) -> None:
        """Until the victim sleeps in its phase, and a heartbeat has told the others so."""
        self._next(self.setup.victim, str)
        time.sleep(self.setup.deadline_seconds / 8)

    def after(self, fault: Callable[[], object]) -> End:
        """Brings on a fault, and watches the processes go, for one deadline more than they have."""
        began = time.monotonic()
        fault()
        waiting: dict[Any, Any] = {process.sentinel: process for process in self._processes}
        limit = began + 2 * self.setup.deadline_seconds
        while waiting and (left := limit - time.monotonic()) > 0:
            for gone in connection.wait(list(waiting), left):
                waiting.pop(gone).join()
        seconds = float("inf") if waiting else time.monotonic() - began
        return End(seconds, [process.exitcode for process in self._processes])

    def kill(self) -> None:
        """`kill -9` of the victim."""
        self._send(self.setup.victim, signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP of the victim."""
        self._send(self.setup.victim, signal.SIGSTOP)

    def leave(self) -> list[int | None]:
        """Lets ranks that do not train end as they should; their exit codes."""
        self._tell("leave")
        for process in self._processes:
            process.join(_START_SECONDS)
        return [process.exitcode for process in self._processes]

    def _tell(self, wish: str | int) -> None:
        for pipe in self._pipes:
            pipe.send(wish)

    def _send(self, rank: int, number: signal.Signals) -> None:
        pid = self._processes[rank].pid
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def _next(self, rank: int, kind: type) -> Any:
        """The next message of that kind; steps told on the way are passed over."""
        while not isinstance(message := self._receive(rank), kind):
            pass
        return message

    def _receive(self, rank: int) -> Any:
        assert self._pipes[rank].poll(_START_SECONDS), f"rank {rank} is silent"
        return self._pipes[rank].recv()
