import signal
from types import FrameType, TracebackType
from typing import Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What asks a run to save and leave; SIGUSR1 is what Slurm's `--signal` commonly sends ahead of the time limit."""


class StopRequest:
    """Catches Ctrl-C, SIGTERM, SIGUSR1 and a lost terminal while a run trains: the handler only sets a flag.

    The loop looks at the flag between steps, saves and leaves. A second Ctrl-C ends the process at once, as
    without a handler. Only the main thread may enter.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> Self:
        # What is ignored already stays so: nohup asks for that. Not so SIGUSR1, which slurm/train.sbatch has
        # ignored for torchrun's sake; so it does nothing before and after training, and is heard in between.
        heard = [n for n in STOP_SIGNALS if n == signal.SIGUSR1 or signal.getsignal(n) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it; 0 when none came."""
        return 128 + self.signal if self.signal else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
