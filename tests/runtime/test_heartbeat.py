"""Who counts as lost, judged by two heartbeats in this process over a real connection."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from parallax.runtime.heartbeat import Heartbeat, Loss, Report

INTERVAL_SECONDS = 0.05
HERE = Report(7, "forward", "all_reduce of 3 float in track")


class Monitor:
    """Rank 0's heartbeat of a run of two, and what it lost."""

    def __init__(self) -> None:
        self.lost: list[Loss] = []
        self.ended = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.beat = heartbeat(0, listener, self._note)
        self.thread = threading.Thread(target=self.beat.run, daemon=True)
        self.thread.start()

    def _note(self, losses: list[Loss]) -> None:
        self.lost = losses
        self.ended.set()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))

    def loss(self) -> Loss:
        assert self.ended.wait(10)
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.lost[0]


def heartbeat(rank: int, connection: socket.socket, on_loss: Callable[[list[Loss]], None]) -> Heartbeat:
    return Heartbeat(
        rank,
        range(2),
        connection=connection,
        token="secret",
        interval_seconds=INTERVAL_SECONDS,
        report=lambda: HERE,
        on_loss=on_loss,
    )


@contextmanager
def rank_1(monitor: Monitor) -> Iterator[Heartbeat]:
    beat = heartbeat(1, monitor.connect(), lambda losses: None)
    thread = threading.Thread(target=beat.run, daemon=True)
    thread.start()
    time.sleep(4 * INTERVAL_SECONDS)
    yield beat
    thread.join(10)
    assert not thread.is_alive()


def say(connection: socket.socket, *messages: dict[str, Any]) -> None:
    connection.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))


HELLO = {"rank": 1, "token": "secret"}
BEAT = {"beat": {"step": 7, "phase": "forward", "collective": "all_reduce of 3 float in track"}}


@pytest.fixture
def monitor() -> Monitor:
    return Monitor()


def test_ranks_that_say_farewell_are_not_lost(monitor: Monitor) -> None:
    with rank_1(monitor) as beat:
        beat.leave()
    time.sleep(4 * INTERVAL_SECONDS)
    monitor.beat.leave()
    monitor.thread.join(10)
    assert not monitor.thread.is_alive()
    assert monitor.lost == []


def test_rank_0_waits_for_those_that_still_work(monitor: Monitor) -> None:
    with rank_1(monitor) as beat:
        monitor.beat.leave()
        time.sleep(10 * INTERVAL_SECONDS)
        assert monitor.thread.is_alive()
        beat.leave()
    monitor.thread.join(10)
    assert not monitor.thread.is_alive()


def test_a_connection_that_drops_without_farewell_is_a_loss(monitor: Monitor) -> None:
    with monitor.connect() as connection:
        say(connection, HELLO, BEAT)
    assert monitor.loss() == Loss(1, "its connection dropped", HERE)


def test_silence_is_a_loss_after_more_than_half_a_deadline(monitor: Monitor) -> None:
    with monitor.connect() as connection:
        say(connection, HELLO, BEAT)
        time.sleep(8 * INTERVAL_SECONDS)
        assert not monitor.ended.is_set()
        loss = monitor.loss()
    assert loss.reason.startswith("no sign of life for 0.")
    assert loss.last == HERE


def test_a_rank_that_never_came_is_lost_as_well(monitor: Monitor) -> None:
    assert monitor.loss() == Loss(1, monitor.lost[0].reason, Report())


def test_a_stranger_is_not_listened_to(monitor: Monitor) -> None:
    with monitor.connect() as connection:
        say(connection, HELLO | {"token": "guess"}, BEAT)
        connection.settimeout(5)
        assert connection.recv(1) == b""
    assert monitor.loss().last == Report()


def test_a_rank_that_announced_its_error_may_end_in_its_own_way(monitor: Monitor) -> None:
    with monitor.connect() as connection:
        say(connection, HELLO, BEAT, {"error": "NonFiniteError: the loss is NaN"})
        monitor.beat.leave()
        monitor.thread.join(10)
    assert monitor.lost == []


def test_a_rank_that_ended_with_an_error_is_lost_to_those_that_go_on(monitor: Monitor) -> None:
    with monitor.connect() as connection:
        say(connection, HELLO, BEAT, {"error": "OSError: no such disk"})
    assert monitor.loss() == Loss(1, "it failed: OSError: no such disk", HERE)


def test_the_others_are_told_who_is_lost_and_not_left_to_find_out() -> None:
    told: list[list[Loss]] = []
    here, there = socket.socketpair()
    beat = heartbeat(1, there, told.append)
    thread = threading.Thread(target=beat.run, daemon=True)
    thread.start()
    say(here, {"lost": [{"rank": 5, "reason": "gone", "last": BEAT["beat"]}]})
    thread.join(10)
    assert told == [[Loss(5, "gone", HERE)]]
    here.close()
