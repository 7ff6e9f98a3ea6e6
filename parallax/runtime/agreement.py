import signal
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from parallax.runtime.stop import STOP_SIGNALS


class Agreed(NamedTuple):
    """What all ranks know after a step, the same on each."""

    signal: signal.Signals | None
    """A signal that some rank had received when it began the step; None: go on."""
    sums: tuple[int, ...]
    """The numbers that the ranks gave, added up."""


class Agreement:
    """One small reduction a step, by which all ranks leave after the same one.

    It begins with the step and is read at its end, so that it travels while the step computes. A signal that
    arrives during step s is told with step s + 1 at the latest, and every rank leaves after that one.

    Args:
        group: the control group; None: one process, which agrees with itself.
        num_sums: how many whole numbers are added up besides.
    """

    def __init__(self, group: dist.ProcessGroup | None, num_sums: int = 0) -> None:
        self._group = group
        self._num_sums = num_sums
        self._total: torch.Tensor | None = None
        self._work: dist.Work | None = None

    def begin(self, received: signal.Signals | None, sums: Sequence[int] = ()) -> None:
        """Says what this rank knows; once before every `finish`, on every rank, in the same order.

        Args:
            received: the signal that asks this process to stop; None: none did.
            sums: this rank's summands.
        """
        assert self._total is None, "begin() before the last agreement was finished"
        assert len(sums) == self._num_sums, f"{len(sums)} sums, {self._num_sums} announced"
        heard = [int(received == number) for number in STOP_SIGNALS]
        self._total = torch.tensor([*heard, *sums], dtype=torch.int64)
        if self._group is not None:
            self._work = dist.all_reduce(self._total, group=self._group, async_op=True)

    def finish(self) -> Agreed:
        """Waits for the slowest rank to have begun, which it has unless it lags by a whole step."""
        assert self._total is not None, "finish() without begin()"
        if self._work is not None:
            self._work.wait()
        heard, sums = self._total.tolist()[: len(STOP_SIGNALS)], self._total.tolist()[len(STOP_SIGNALS) :]
        self._total = self._work = None
        first = next((number for number, count in zip(STOP_SIGNALS, heard, strict=True) if count), None)
        return Agreed(first, tuple(sums))
