import ctypes
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from parallax.config.layout import Layout
from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.parallel.build import build_native_engine
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.parallel.native import NativeEngine
from parallax.runtime.agreement import Agreement
from parallax.runtime.device import Precision
from parallax.runtime.phase import note_step, phase, whereabouts
from parallax.runtime.process_group import Joined, join, leave
from parallax.runtime.ranks import Ranks
from parallax.runtime.stop import StopRequest
from parallax.runtime.watchdog import Watchdog

_CPU = torch.device("cpu")
_LENGTH, _VOCAB, _BATCH = 32, 256, 2
_NEW_NETWORK = 0x40000000
Arms = tuple[list[float], list[float], list[float]]
TRACK2_FSDP2 = Layout(track=2, dp_replicate=1, dp_shard=2)


@dataclass(frozen=True)
class Setup:
    """What the processes of one trial do."""

    folder: Path
    """In the place of a run folder."""
    deadline_seconds: float
    layout: Layout = TRACK2_FSDP2
    hidden_size: int = 64
    victim: int = 0
    """The rank that something will happen to."""
    park: str | None = None
    """The phase of step `park_step` in which the victim sleeps, so that the fault finds it there."""
    park_step: int = 3
    raises: bool = False
    """Whether the victim raises an error of its own there instead."""
    address: str = "127.0.0.1"
    interfaces: tuple[str, ...] = ()
    """Of each rank; empty: whatever the address is reached by."""
    namespace: str | None = None
    """Network namespace that the victim lives in."""


@dataclass(frozen=True)
class Left:
    """How a rank left the loop."""

    step: int
    signal: signal.Signals | None
    tokens: int
    """The sum over ranks that travelled with the agreement."""
    arrived: int | None
    """The step during which this rank itself was signalled."""


def run_rank(setup: Setup, rank: int, port: int, pipe: Connection) -> None:
    """One rank's life: join, watch, train until a signal is agreed on, tell, and begin again.

    The other side of the pipe says what to do: "train", "leave", or a number of steps to compare.
    """
    torch.set_num_threads(1)
    _enter_network(setup, rank)
    # As under torchrun, the launcher hosts the store: its port was free, and no rank's end takes it away.
    os.environ |= {
        "MASTER_ADDR": setup.address,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    joined = join(Ranks(rank, setup.layout.world_size, rank), _CPU)
    with (
        Watchdog(joined.control, deadline_seconds=setup.deadline_seconds, folder=setup.folder),
        _NotingStop() as stop,
    ):
        mesh = build_mesh(setup.layout, _CPU)
        engine = build_engine(setup, mesh)
        if rank == setup.victim and setup.park is not None:
            _park(engine, setup, pipe)
        pipe.send("ready")
        step = 0
        while (wish := pipe.recv()) != "leave":
            if wish != "train":
                pipe.send(_compare(engine, mesh, joined, wish))
                continue
            left = _train(engine, mesh, joined, stop, step, pipe)
            stop.signal, stop.arrived, step = None, None, left.step
            pipe.send(left)
    leave()


class _NotingStop(StopRequest):
    """Remembers the step during which the signal came."""

    arrived: int | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.arrived = whereabouts().step
        super()._note(number, frame)


def build_engine(setup: Setup, mesh: Mesh) -> NativeEngine:
    """A small model spread over the trial's ranks."""
    engine = build_native_engine(
        DualTrackConfig(
            num_layers=2,
            num_heads=2,
            num_kv_heads=2,
            hidden_size=setup.hidden_size,
            intermediate_size=2 * setup.hidden_size,
            vocab_size=_VOCAB,
            max_seq_len=_LENGTH,
        ),
        mesh=mesh,
        device=_CPU,
        precision=Precision("fp32", None, scales_loss=False, reason="small"),
        build_optimizer=lambda model: AdamW(model.parameters(), lr=1e-3),
        grad_clip=1.0,
    )
    placement = engine.placement
    assert placement is not None
    engine.materialize(lambda model: model.initialize(0, placement.put))
    return engine


def train_step(engine: NativeEngine, mesh: Mesh, step: int) -> int:
    """One step on random tokens; returns how many targets this rank had."""
    windows = random_windows(step, mesh.dp_rank)
    engine.forward_backward([windows], Objective(), [row_keys(0, range(len(windows)))])
    engine.clip_and_step(1e-3)
    return _BATCH * _LENGTH


def random_windows(step: int, dp_rank: int) -> Tensor:
    """The same on all ranks of a track group."""
    generator = torch.Generator().manual_seed(1000 * step + dp_rank)
    return torch.randint(_VOCAB, (_BATCH, _LENGTH + 1), generator=generator)


def _train(
    engine: NativeEngine, mesh: Mesh, joined: Joined, stop: _NotingStop, step: int, pipe: Connection
) -> Left:
    agreement = Agreement(joined.control, num_sums=1)
    while True:
        step += 1
        note_step(step)
        agreement.begin(stop.signal, [_BATCH * _LENGTH])
        train_step(engine, mesh, step)
        with phase("agree"):
            agreed = agreement.finish()
        pipe.send(step)
        if agreed.signal is not None:
            return Left(step, agreed.signal, agreed.sums[0], stop.arrived)


def _compare(engine: NativeEngine, mesh: Mesh, joined: Joined, steps: int) -> Arms:
    """Seconds of as many steps with the agreement, without, and again without, in turns."""
    agreement = Agreement(joined.control, num_sums=1)
    seconds: Arms = ([], [], [])
    for step in range(3 * steps):
        began = time.perf_counter()
        if step % 3 == 0:
            agreement.begin(None, [_BATCH * _LENGTH])
        train_step(engine, mesh, step)
        if step % 3 == 0:
            agreement.finish()
        seconds[step % 3].append(time.perf_counter() - began)
    return seconds


def _park(engine: NativeEngine, setup: Setup, pipe: Connection) -> None:
    """Makes the victim sleep, or fail, in the phase it is to be hit in, once a step."""

    def halt(*_: Any) -> None:
        here = whereabouts()
        if (here.step, here.phase) != (setup.park_step, setup.park):
            return
        if setup.raises:
            raise ArithmeticError("the victim's own mistake")
        pipe.send("parked")
        time.sleep(10 * setup.deadline_seconds)

    engine.model.register_forward_pre_hook(halt)
    engine.optimizer.register_step_pre_hook(halt)
    # The loss is where the backward begins.
    engine.model.register_forward_hook(
        lambda model, given, output: output.objective_sum.register_hook(halt) and None
    )


def _enter_network(setup: Setup, rank: int) -> None:
    if setup.interfaces:
        os.environ["GLOO_SOCKET_IFNAME"] = setup.interfaces[rank]
    if setup.namespace is None or rank != setup.victim:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{setup.namespace}", os.O_RDONLY)
    if libc.setns(descriptor, _NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter network namespace {setup.namespace}")
    os.close(descriptor)
