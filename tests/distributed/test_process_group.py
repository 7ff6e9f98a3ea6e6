"""What keeps ranks from joining is one line that says what to do."""

import socket

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from parallax.errors import JoinError
from parallax.runtime.process_group import Joined, join, leave
from parallax.runtime.ranks import Ranks

CPU = torch.device("cpu")


def join_here(ranks: Ranks, port: int, *, agent_store: bool = False) -> Joined:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MASTER_ADDR", "127.0.0.1")
        patched.setenv("MASTER_PORT", str(port))
        patched.setenv("TORCHELASTIC_USE_AGENT_STORE", str(agent_store))
        return join(ranks, CPU, join_seconds=2)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_process_alone_joins_nothing() -> None:
    assert join(Ranks(), CPU) == Joined(Ranks(), None)
    assert not dist.is_initialized()
    leave()


def test_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("MASTER_PORT", "99999")
    with pytest.raises(JoinError, match=r"MASTER_ADDR='' MASTER_PORT='99999' name no address.*torchrun"):
        join(Ranks(0, 2, 0), CPU)


def test_nobody_at_the_address() -> None:
    port = unused_port()
    with pytest.raises(JoinError, match=rf"rank 1 cannot reach rank 0 at 127.0.0.1:{port} within 2 s; see that"):
        join_here(Ranks(1, 2, 1), port)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(JoinError, match=rf"the port of 127.0.0.1:{port} is taken.*choose another MASTER_PORT"):
            join_here(Ranks(0, 2, 0), port)


def test_ranks_that_do_not_come() -> None:
    with pytest.raises(JoinError, match=r"not all of 2 ranks came to 127.0.0.1:\d+ within 2 s; start the missing"):
        join_here(Ranks(0, 2, 0), unused_port())


def test_ranks_that_were_started_differently() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("parallax/started/0", '{"WORLD_SIZE": 4, "torch": "2.13.0"}')
    with pytest.raises(JoinError, match=r"rank 1 has WORLD_SIZE=2 and rank 0 has WORLD_SIZE=4; start all ranks"):
        join_here(Ranks(1, 2, 1), store.port, agent_store=True)


def test_one_rank_started_twice() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.add("parallax/started/count/1", 1)
    with pytest.raises(JoinError, match=r"two processes are RANK=1; give each of them a number of its own"):
        join_here(Ranks(1, 2, 1), store.port, agent_store=True)
