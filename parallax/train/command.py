import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console

from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.errors import ConfigError, run_and_explain
from parallax.metrics.sinks.protocol import RunStatus
from parallax.runtime.device import resolve_device
from parallax.runtime.lock import RunLock
from parallax.runtime.ranks import read_ranks
from parallax.runtime.stop import StopRequest
from parallax.train.auto_batch import settle_micro_batch
from parallax.train.display import SilentDisplay, build_console, open_display
from parallax.train.goal import reached_before, require_goal
from parallax.train.loop import run_loop
from parallax.train.out_of_memory import advising_when_full
from parallax.train.run_folder import RunFolder
from parallax.train.session import Session
from parallax.train.setup import open_session, resolve_machine
from parallax.train.sources import open_sources
from parallax.train.summary import describe_end, describe_start
from parallax.train.tracking import Outcome, tracked
from parallax.train.world import World, open_world


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m parallax.train CONFIG [key=value …]`; returns the exit code."""
    return run_and_explain(lambda: train(_parse(arguments)))


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as every other one is reported, in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see: {self.prog} --help")


def _parse(arguments: Sequence[str] | None) -> RunConfig:
    parser = _Parser(prog="python -m parallax.train", description="Train, or resume, one run.")
    parser.add_argument("config", help="YAML file, for example configs/tiny.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example optim.lr=1e-3")
    given = parser.parse_args(arguments)
    return load_config(given.config, given.overrides)


def train(config: RunConfig, console: Console | None = None) -> int:
    """Trains a run to its end, or resumes the one in its folder.

    Returns:
        0 when the run is complete; 128 + the signal's number when it was asked to stop and has saved.

    Raises:
        ParallaxError: whatever keeps the run from starting or going on; `GoalError` if it ended in vain.
    """
    ranks = read_ranks()
    device = resolve_device(config.runtime.device, ranks.local_rank)
    with advising_when_full(config, ranks.world_size, device), ExitStack() as stack:
        world = stack.enter_context(open_world(config, ranks, device))
        return _train(config, device, world, stack, console)


def _train(
    config: RunConfig, device: torch.device, world: World, stack: ExitStack, console: Console | None
) -> int:
    display = open_display(console or build_console()) if world.is_first else SilentDisplay()
    folder = RunFolder(Path(config.run.dir))
    saved = world.on_first(folder.saved_config)
    config, precision = resolve_machine(config, saved, device)
    sources = world.first_then_others(lambda: open_sources(config, display))
    world.on_first(lambda: _enter(stack, RunLock(folder.path)))
    stop = stack.enter_context(StopRequest())
    config = settle_micro_batch(config, saved, world, device, precision, display.message)
    changed = world.on_first(lambda: folder.settle(config))
    session = open_session(config, device, precision, folder, sources, display, world)
    begun_before = world.on_first(lambda: _note_start(session, changed))
    for line in describe_start(session, changed):
        display.message(line)
    with tracked(session, begun_before) as outcome:
        reached = world.on_first(lambda: reached_before(session))
        if reached or session.progress.step >= session.total_steps:
            require_goal(session, reached=reached)
            outcome.status = "FINISHED"
            return 0
        outcome.status = _run(session, stop, outcome)
    for line in describe_end(session, complete=outcome.status == "FINISHED"):
        display.message(line)
    return 0 if outcome.status == "FINISHED" else stop.exit_code


def _enter(stack: ExitStack, lock: RunLock) -> None:
    stack.enter_context(lock)


def _note_start(session: Session, changed: dict[str, tuple[Any, Any]]) -> bool:
    """Writes down that the run starts or goes on; returns whether a process has worked here before."""
    folder = session.folder
    if changed:
        folder.save_config(session.config)
    begun_before = folder.has_events()
    folder.note_event(
        "resume" if session.progress.step > 0 else "start",
        step=session.progress.step,
        ranks=session.world.ranks.world_size,
        changed={key: list(values) for key, values in changed.items()},
    )
    return begun_before


def _run(session: Session, stop: StopRequest, outcome: Outcome) -> RunStatus:
    """The loop, shown to a person."""
    session.display.begin(session.progress.step, session.total_steps)
    try:
        return "FINISHED" if run_loop(session, stop) else "KILLED"
    except KeyboardInterrupt:
        outcome.status = "KILLED"
        raise
    finally:
        session.display.end()
