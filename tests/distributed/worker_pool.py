"""Processes over gloo that live as long as the test session and run one function after the other."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_START_SECONDS = 120.0


class WorkerPool:
    """`world_size` ranks of one process group; a call that fails or hangs ends them all."""

    def __init__(self, world_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._store = tempfile.TemporaryDirectory()
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(world_size):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(there, rank, world_size, str(Path(self._store.name) / "store")), daemon=True
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        self._collect(_START_SECONDS)

    def run(self, function: Callable[..., Any], *arguments: Any, timeout: float = 60.0) -> list[Any]:
        """What the function returns on every rank, by rank. It is called at the same time on all of them."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        return self._collect(timeout)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
            process.join()
        self._store.cleanup()

    @property
    def is_alive(self) -> bool:
        """Whether another function can be run."""
        return all(process.is_alive() for process in self._processes)

    def _collect(self, timeout: float) -> list[Any]:
        results, failures = [], []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(1.0 if failures else timeout):
                failures.append(f"rank {rank} gave no answer in {timeout:g} s")
                continue
            try:
                worked, value = pipe.recv()
            except EOFError:
                worked, value = False, "the process ended"
            results.append(value)
            if not worked:
                failures.append(f"rank {rank}:\n{value}")
        if failures:
            self.close()
            raise AssertionError("\n".join(failures))
        return results


def _serve(pipe: Connection, rank: int, world_size: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=30),
    )
    pipe.send((True, None))
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, function(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))


PoolOf = Callable[[int], WorkerPool]
"""From the number of ranks to the pool that has them."""
