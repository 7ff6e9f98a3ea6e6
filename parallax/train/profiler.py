from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


class StepProfiler:
    """Traces the steps START .. END of `train.profile=START:END` into `FOLDER/steps-START-END.json`.

    The file opens in Perfetto or chrome://tracing. Without a span it does nothing.
    """

    def __init__(self, span: str | None, folder: Path, device: torch.device) -> None:
        self._first, self._last = map(int, span.split(":")) if span else (0, 0)
        self._folder = folder
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._activities = activities
        self._running: profile | None = None

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Put around each step; starts before the first of the span and writes the trace after the last."""
        if self._first and step == self._first:
            self._running = profile(activities=self._activities)
            self._running.start()
        yield
        if self._running is not None and step == self._last:
            self._running.stop()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._running.export_chrome_trace(str(self._folder / f"steps-{self._first}-{self._last}.json"))
            self._running = None
