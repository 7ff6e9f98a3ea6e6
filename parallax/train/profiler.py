from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


class StepProfiler:
    """Traces the steps START .. END of `train.profile=START:END` into `FOLDER/steps-START-END.json`.

    The file opens in Perfetto or chrome://tracing. A run that ends inside the span keeps what was traced.
    Without a span nothing happens.
    """

    def __init__(self, span: str | None, folder: Path, device: torch.device) -> None:
        self._first, self._last = map(int, span.split(":")) if span else (0, 0)
        self._folder = folder
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._activities = activities
        self._running: profile | None = None
        self._traced = 0

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Put around each step; starts before the first of the span and writes the trace after the last."""
        if step == self._first:
            self._running = profile(activities=self._activities)
            self._running.start()
        yield
        self._traced = step
        if step == self._last:
            self.close()

    def close(self) -> None:
        """Writes the trace, if one is being made."""
        if self._running is None:
            return
        self._running.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._running.export_chrome_trace(str(self._folder / f"steps-{self._first}-{self._traced}.json"))
        self._running = None
