import contextlib
import os
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch.distributed as dist

from parallax.errors import JoinError, ParallaxError
from parallax.runtime.collectives_log import last_collective
from parallax.runtime.flight import write_dump
from parallax.runtime.heartbeat import TICKS, Heartbeat, Loss, Report
from parallax.runtime.members import Member, end_members, this_member
from parallax.runtime.phase import whereabouts

LOST_EXIT_CODE = 75
"""How a rank ends when the run has lost another one: EX_TEMPFAIL, the same command may well succeed."""

_STDERR = 2
_BACKLOG = 4096
_ERROR_CHARACTERS = 200

LastWords = Callable[[Sequence[Loss]], None]


class _Invitation(NamedTuple):
    """What every rank knows of every other; port and token are rank 0's."""

    member: Member
    port: int
    token: str


class Watchdog:
    """Ends this process when another rank is lost, even if its main thread hangs in a collective.

    While it is entered, a thread exchanges heartbeats with rank 0 (see `Heartbeat`). When a rank is lost, every
    other one prints a line that names it, writes `flight/rank-N.txt` into the run folder, kills what would
    outlive the run on its host, and ends with `LOST_EXIT_CODE`. All of that is over within the deadline:
    0.55 of it at most until the loss is certain, 0.15 for the dump, 0.2 for the lost rank to end by itself.

    An error that leaves the block is announced to the others. If it is none of ours, it may be the mere effect
    of a lost rank, such as gloo's "connection closed by peer": the cause is waited for first.

    Entering and leaving are collective; do both right after `join` and right before `leave`.

    Args:
        control: the control group; None: one process, and nothing to watch.
        deadline_seconds: from a rank's end to that of all.
        folder: the run folder; `flight/` is made in it.
        last_words: called with what was lost before the process ends, on every survivor, in a thread of its own
            and for a tenth of the deadline at most. It must issue no collective.
    """

    def __init__(
        self,
        control: dist.ProcessGroup | None,
        *,
        deadline_seconds: float,
        folder: Path,
        last_words: LastWords | None = None,
    ) -> None:
        self._control = control
        self._deadline = deadline_seconds
        self._folder = folder / "flight"
        self._last_words = last_words
        self._heartbeat: Heartbeat | None = None
        self._error: str | None = None

    def __enter__(self) -> Self:
        """Starts to watch.

        Raises:
            JoinError: rank 0 cannot be reached.
        """
        if self._control is None:
            return self
        self._rank = dist.get_rank(self._control)
        listener = _listen() if self._rank == 0 else None
        port = listener.getsockname()[1] if listener else 0
        mine = _Invitation(this_member(self._rank), port, secrets.token_hex(16))
        gathered: list[_Invitation] = [mine] * self._control.size()
        dist.all_gather_object(gathered, mine, group=self._control)
        self._members = [invitation.member for invitation in gathered]
        host = gathered[0]
        self._heartbeat = Heartbeat(
            self._rank,
            range(len(gathered)),
            connection=listener or _connect(host.port, self._rank, self._deadline),
            token=host.token,
            interval_seconds=self._deadline / TICKS,
            report=_report,
            on_loss=self._end,
        )
        self._thread = threading.Thread(target=self._watch, args=(self._heartbeat,), name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says farewell; rank 0 waits until all have. After an error, tells the others and lets it pass."""
        if self._heartbeat is None:
            return
        if error is None:
            self._heartbeat.leave()
            self._thread.join()
            return
        self._error = "".join(traceback.format_exception(error))
        first = str(error).partition("\n")[0][:_ERROR_CHARACTERS]
        self._heartbeat.announce(f"{type(error).__name__}: {first}")
        if isinstance(error, Exception) and not isinstance(error, ParallaxError):
            self._thread.join(self._deadline * 0.25)

    def _watch(self, heartbeat: Heartbeat) -> None:
        try:
            heartbeat.run()
        except BaseException as error:
            self._end([Loss(self._rank, f"its watchdog failed: {error!r}", _report())])

    def _end(self, losses: Sequence[Loss]) -> None:
        """The failure path: no collective, and a bound on every part of it."""
        path = self._folder / f"rank-{self._rank}.txt"
        names = "; ".join(describe_loss(loss) for loss in losses)
        line = f"error: rank {self._rank} ends with the run: {names}; see {path}; the same command resumes\n"
        actions: list[Callable[[], object]] = [
            lambda: os.write(_STDERR, line.encode()),
            lambda: write_dump(path, self._rank, losses, self._error),
        ]
        if (last_words := self._last_words) is not None:
            actions.append(lambda: last_words(losses))
        _attempt(actions, self._deadline * 0.15)
        end_members(self._members, [loss.rank for loss in losses], grace_seconds=self._deadline * 0.2)
        os._exit(LOST_EXIT_CODE)


def describe_loss(loss: Loss) -> str:
    """The rank, why it is lost, and where it was last: one phrase."""
    last = loss.last
    return (
        f"rank {loss.rank} is lost ({loss.reason}) in phase {last.phase} of step {last.step}, "
        f"last collective {last.collective}"
    )


def _attempt(actions: Sequence[Callable[[], object]], seconds: float) -> None:
    """Runs each in a thread: on a dead disk or terminal one may hang or fail, and the others still work."""
    threads = [threading.Thread(target=_quietly, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))


def _quietly(action: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        action()


def _report() -> Report:
    here = whereabouts()
    return Report(here.step, here.phase, last_collective())


def _listen() -> socket.socket:
    """A socket on every address of this host, at a port that is free."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    return socket.create_server(("", 0), backlog=_BACKLOG)


def _connect(port: int, rank: int, seconds: float) -> socket.socket:
    host = os.environ["MASTER_ADDR"]
    try:
        return socket.create_connection((host, port), timeout=seconds)
    except OSError as error:
        raise JoinError(
            f"rank {rank} cannot reach rank 0's watchdog at {host}:{port} ({error}); let the nodes of a run open "
            f"any port between each other"
        ) from error
