import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

TICKS = 20
"""Heartbeats within one deadline."""
_SILENT_TICKS = 10
_FAILING_TICKS = 9
_ENDED_TICKS = 2
_LINE_BYTES = 2**22
_FAILED = "it failed: "


@dataclass(frozen=True)
class Report:
    """Where a rank was at its last heartbeat."""

    step: int = 0
    phase: str = "setup"
    collective: str = "none"


@dataclass(frozen=True)
class Loss:
    """A rank that the run has lost, and why."""

    rank: int
    reason: str
    last: Report

    @property
    def is_own_error(self) -> bool:
        """Whether it said itself that it ends with an error, and did not just vanish."""
        return self.reason.startswith(_FAILED)


@dataclass
class _Peer:
    last: Report = field(default_factory=Report)
    writer: asyncio.StreamWriter | None = None
    missed: int = 0
    dropped: bool = False
    left: bool = False
    error: str | None = None
    error_ticks: int = 0
    dropped_ticks: int = 0


class Heartbeat:
    """Tells whether the other ranks live: rank 0 listens to all, the others to rank 0, over plain TCP.

    Each sends a line every twentieth of the deadline. Rank 0 loses a rank whose connection drops without a
    farewell, or of which 10 lines in a row do not come, and says so to the others; these lose rank 0 in the same
    way. Time is counted in ticks of one's own, so that a process that stood still does not take the others for
    silent when it wakes: it finds its connections closed. PyTorch's own store would not do: its calls block
    while its host is stopped, and it tells nobody that a connection dropped.

    Everything runs in the event loop of one thread and takes no part in any collective.

    Args:
        rank: of this process.
        ranks: all of them.
        connection: rank 0: the listening socket; others: the connected one.
        token: what a connection to rank 0 must begin with, so that strangers are not listened to.
        interval_seconds: between two lines.
        report: where this process is, called for each line.
        on_loss: called once, in the thread of `run`, with what was lost; should it return, so does `run`.
    """

    def __init__(
        self,
        rank: int,
        ranks: Iterable[int],
        *,
        connection: socket.socket,
        token: str,
        interval_seconds: float,
        report: Callable[[], Report],
        on_loss: Callable[[list[Loss]], None],
    ) -> None:
        self._rank = rank
        self._peers = {other: _Peer() for other in ranks if other != rank and 0 in (rank, other)}
        self._connection = connection
        self._token = token
        self._interval = interval_seconds
        self._report = report
        self._on_loss = on_loss
        self._own_error: str | None = None
        self._own_error_ticks = 0
        self._leaving = self._over = False
        self._left = asyncio.Event()
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        """Beats and listens until this rank leaves; the body of the thread."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._run())

    def leave(self) -> None:
        """Says farewell, from another thread; `run` then returns. Rank 0 goes on until all others have left."""
        self._loop.call_soon_threadsafe(self._say_farewell)

    def announce(self, error: str) -> None:
        """Says that this rank ends with an error of its own, from another thread.

        The others may be about to raise the same one: they have 9 ticks to end in their own way, or 2 once this
        rank's process is gone. It has 9 itself, in case its interpreter hangs on the way out.
        """
        self._loop.call_soon_threadsafe(self._say_error, error)

    async def _run(self) -> None:
        if self._rank == 0:
            server = await asyncio.start_server(self._greet, sock=self._connection, limit=_LINE_BYTES)
        else:
            reader, self._peers[0].writer = await asyncio.open_connection(sock=self._connection, limit=_LINE_BYTES)
            self._tell({"rank": self._rank, "token": self._token})
            listening = asyncio.create_task(self._listen(0, reader))
        while not self._done():
            self._tell({"beat": asdict(self._report())})
            self._judge()
            await self._sleep()
        if self._rank == 0:
            server.close()
        else:
            listening.cancel()
        for peer in self._peers.values():
            if peer.writer is not None:
                peer.writer.close()
                with contextlib.suppress(OSError):
                    await peer.writer.wait_closed()

    async def _sleep(self) -> None:
        """Until the next tick, or until there is no need for one."""
        end = self._loop.time() + self._interval
        while not self._done() and (left := end - self._loop.time()) > 0:
            self._left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), left)

    def _done(self) -> bool:
        if self._over or not self._leaving:
            return self._over
        return self._rank != 0 or all(peer.left or peer.error for peer in self._peers.values())

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Rank 0's side of a new connection."""
        try:
            hello = json.loads(await reader.readline())
            peer = self._peers[hello["rank"]]
            if hello["token"] != self._token or peer.writer is not None:
                raise ValueError("a stranger")
        except (OSError, ValueError, KeyError, TypeError):
            writer.close()
            return
        peer.writer = writer
        await self._listen(hello["rank"], reader)

    async def _listen(self, rank: int, reader: asyncio.StreamReader) -> None:
        peer = self._peers[rank]
        try:
            async for line in reader:
                peer.missed = 0
                self._take(peer, json.loads(line))
        except (OSError, ValueError):
            pass  # Reset, or cut off in the middle of a line: as good as closed.
        finally:
            peer.dropped = True

    def _take(self, peer: _Peer, message: dict[str, Any]) -> None:
        if "beat" in message:
            peer.last = Report(**message["beat"])
        elif "error" in message:
            peer.error = message["error"]
        elif "lost" in message:
            losses = message["lost"]
            self._lose([Loss(loss["rank"], loss["reason"], Report(**loss["last"])) for loss in losses])
        else:
            peer.left = True
            self._left.set()

    def _judge(self) -> None:
        """One tick: who is lost by now? Nearly silent ranks go with the silent ones, as a node's ranks do."""
        losses = []
        for rank, peer in self._peers.items():
            peer.missed += 1
            peer.error_ticks += peer.error is not None
            peer.dropped_ticks += peer.dropped
            if (reason := self._reason(peer, _SILENT_TICKS)) is not None:
                losses.append(Loss(rank, reason, peer.last))
        if self._own_error is not None:
            self._own_error_ticks += 1
            if self._own_error_ticks > _FAILING_TICKS:
                losses.append(Loss(self._rank, self._own_error, self._report()))
        if not losses:
            return
        known = {loss.rank for loss in losses}
        for rank, peer in self._peers.items():
            nearly = self._reason(peer, _SILENT_TICKS // 2)
            if rank not in known and nearly is not None:
                losses.append(Loss(rank, nearly, peer.last))
        if self._rank == 0:
            self._tell({"lost": [asdict(loss) for loss in losses]})
        self._lose(losses)

    def _lose(self, losses: list[Loss]) -> None:
        self._over = True
        self._left.set()
        self._on_loss(losses)

    def _reason(self, peer: _Peer, silent_ticks: int) -> str | None:
        if peer.left:
            return None
        if peer.error is not None:
            over = peer.error_ticks > _FAILING_TICKS or peer.dropped_ticks >= _ENDED_TICKS
            return f"{_FAILED}{peer.error}" if over else None
        if peer.dropped:
            return "its connection dropped"
        if peer.missed > silent_ticks:
            return f"no sign of life for {peer.missed * self._interval:.1f} s"
        return None

    def _tell(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        for peer in self._peers.values():
            if peer.writer is not None and not peer.dropped:
                peer.writer.write(line)

    def _say_farewell(self) -> None:
        self._leaving = True
        self._left.set()
        if self._rank != 0:
            self._tell({"farewell": True})

    def _say_error(self, error: str) -> None:
        self._own_error = error
        self._tell({"error": error})
