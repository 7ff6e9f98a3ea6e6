from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread


class Background:
    """One piece of work at a time in a thread that does not keep the process from ending."""

    def __init__(self) -> None:
        self._running: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work is under way here; it may be over on other ranks."""
        return self._running is not None and not self._running.done()

    def start(self, work: Callable[[], object]) -> None:
        """Begins the work; what was started before must have been waited for."""
        if self._running is not None:
            raise RuntimeError("wait for the work that was started before")
        running: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                running.set_exception(error)
            else:
                running.set_result(None)

        self._running = running
        Thread(target=run, name="checkpoint", daemon=True).start()

    def wait(self) -> None:
        """Until the work is done; its error is raised, once."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
