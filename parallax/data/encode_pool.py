import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Self, final

import numpy as np

from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.data.encode import Batch, EncodedRun, encode_pieces
from parallax.data.tokenizer import Tokenizer
from parallax.errors import DataError, UnfinishedError

IN_PROCESS_CHARS = 4 << 20
"""So much is encoded in this process before others are started: small inputs do not pay for their start."""
_IN_FLIGHT = 2
"""Batches given to a process that it has not answered: one in work, one in wait."""

Encoded = tuple[Batch, list[EncodedRun]]


def available_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_num_workers(num_workers: int | None) -> int:
    """The number of processes that encode; all available cores when not given.

    Raises:
        DataError: less than 1.
    """
    if num_workers is not None and num_workers < 1:
        raise DataError(f"num_workers={num_workers} must be at least 1; --num-workers 1 starts no process")
    return num_workers or available_cores()


def encode_batches(
    batches: Iterator[Batch], tokenizer: Tokenizer, dtype: np.dtype[Any], num_workers: int
) -> Generator[Encoded, None, None]:
    """Each batch and its tokens, in order; the same whatever `num_workers` is.

    Bytes are encoded here: handing them to another process takes longer than the work.

    Raises:
        UnfinishedError: a process died.
    """
    left = IN_PROCESS_CHARS
    alone = num_workers == 1 or isinstance(tokenizer, ByteTokenizer)
    for batch in batches:
        yield batch, encode_pieces(tokenizer, batch.pieces, dtype)
        left -= batch.num_chars
        if left <= 0 and not alone:
            break
    else:
        return
    with EncodePool(tokenizer, dtype, num_workers) as pool:
        yield from pool.encode(batches)


@final
class EncodePool:
    """Processes that encode batches, each over pipes of its own.

    Not multiprocessing's pools: they share one pipe for the answers, on which a process that is killed half-way
    through its answer leaves the others and us waiting, and they outlive a parent that is killed. Here either
    side sees the other's end as the end of a pipe.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype[Any], num_workers: int) -> None:
        self._greeting = pickle.dumps((tokenizer.to_json(), dtype.str))
        self._num_workers = num_workers
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        # The module search path is ours, and not the folder that a user happens to work in.
        code = f"import sys; sys.path[:] = {sys.path!r}; from parallax.data.encode_worker import main; main()"
        try:
            for _ in range(self._num_workers):
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-P", "-c", code],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
                    )
                )
            for process in self._processes:
                self._send(process, self._greeting)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def encode(self, batches: Iterator[Batch]) -> Iterator[Encoded]:
        """Each batch and its tokens, in order; at most two batches a process are under way."""
        waiting: deque[tuple[subprocess.Popen[bytes], Batch]] = deque()
        for index, batch in enumerate(batches):
            process = self._processes[index % self._num_workers]
            self._send(process, pickle.dumps(batch.pieces, protocol=pickle.HIGHEST_PROTOCOL))
            waiting.append((process, batch))
            if len(waiting) == _IN_FLIGHT * self._num_workers:
                process, batch = waiting.popleft()
                yield batch, self._receive(process)
        for process, batch in waiting:
            yield batch, self._receive(process)

    def _send(self, process: subprocess.Popen[bytes], message: bytes) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(message)
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died(process) from None

    def _receive(self, process: subprocess.Popen[bytes]) -> list[EncodedRun]:
        assert process.stdout is not None
        try:
            answer = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._died(process) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _died(self, process: subprocess.Popen[bytes]) -> UnfinishedError:
        code = process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return UnfinishedError(
            f"process {process.pid}, which encoded text, ended ({how}), perhaps for want of memory; run the same "
            f"command again, with a smaller --num-workers than {self._num_workers} if it happens again"
        )

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                try:
                    if pipe is not None:
                        pipe.close()
                except BrokenPipeError:  # what was still to be sent has no reader
                    pass
            process.wait()
