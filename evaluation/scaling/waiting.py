import time
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist


class WaitClock:
    """Counts the seconds that this process spends waiting for collectives, in either direction of autograd.

    Collectives that C++ awaits by itself, as DDP's reducer and DTensor's operations do, are not seen.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._wait: Any = dist.Work.wait

    def __enter__(self) -> Self:
        wait = self._wait

        def timed(work: dist.Work, *arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return wait(work, *arguments)
            finally:
                self.seconds += time.perf_counter() - start

        dist.Work.wait = timed  # type: ignore[method-assign,assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        dist.Work.wait = self._wait  # type: ignore[method-assign]
