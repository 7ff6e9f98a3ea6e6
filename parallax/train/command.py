import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console

from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.config.strategy import settle_strategy
from parallax.config.zero_rules import check_zero
from parallax.errors import ConfigError, ElsewhereError, ParallaxError, run_and_explain
from parallax.metrics.environment import source_git_state
from parallax.metrics.sinks.protocol import RunStatus
from parallax.runtime.device import resolve_device
from parallax.runtime.launcher import Launcher, check_started, end_with, read_launcher
from parallax.runtime.lock import RunLock
from parallax.runtime.ranks import Ranks, read_ranks
from parallax.runtime.stop import StopRequest
from parallax.train.display import SilentDisplay, build_console, open_display
from parallax.train.goal import reached_before, require_goal
from parallax.train.loop import run_loop
from parallax.train.planning.auto_batch import settle_micro_batch
from parallax.train.planning.out_of_memory import advising_when_full
from parallax.train.proof import check_joined, check_ranks_agree, check_sharded
from parallax.train.run_folder import RunFolder
from parallax.train.session import Session
from parallax.train.setup import open_session, resolve_machine
from parallax.train.sources import open_sources
from parallax.train.summary import describe_end, describe_start
from parallax.train.tracking import Outcome, state_kept, tracked
from parallax.train.world import World, open_world

_ONE_TELLS_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m parallax.train CONFIG [key=value …]`; returns the exit code."""
    return run_and_explain(lambda: _parse_and_train(arguments))


def _parse_and_train(arguments: Sequence[str] | None) -> int:
    config, command = _parse(arguments)
    return train(config, command=command)


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as every other one is reported, in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see: {self.prog} --help")


def _parse(arguments: Sequence[str] | None) -> tuple[RunConfig, str]:
    """The configuration, and the command that asked for it, for messages."""
    parser = _Parser(prog="python -m parallax.train", description="Train, or resume, one run.")
    parser.add_argument("config", help="YAML file, for example configs/tiny.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example optim.lr=1e-3")
    # DeepSpeed's launcher adds the number to every command; the environment has it as well.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    command = " ".join(["parallax.train", given.config, *given.overrides])
    return load_config(given.config, given.overrides), command


def train(config: RunConfig, console: Console | None = None, *, command: str = "parallax.train CONFIG") -> int:
    """Trains a run to its end, or resumes the one in its folder.

    Args:
        config: as the user gave it; who steps and what ranks divide may still be open.
        console: where to show it; None: the terminal.
        command: the module and its arguments, for messages that show how to start it.

    Returns:
        0 when the run is complete; 128 + the signal's number when it was asked to stop and has saved.

    Raises:
        ParallaxError: whatever keeps the run from starting or going on; `GoalError` if it ended in vain.
    """
    ranks = read_ranks()
    device = resolve_device(config.runtime.device, ranks.local_rank)
    launcher, settled = _settle(config, ranks, device, command)
    end_with(launcher)
    with advising_when_full(settled, ranks.world_size, device), ExitStack() as stack:
        world = stack.enter_context(open_world(settled, ranks, device))
        return _train(config, settled, launcher, device, world, stack, console)


def _settle(config: RunConfig, ranks: Ranks, device: torch.device, command: str) -> tuple[Launcher, RunConfig]:
    """Who started this process, and the configuration with engine and shards settled by what it asks for."""
    try:
        launcher = read_launcher()
        check_started(launcher, ranks, device.type, command)
        engine = launcher.suggested_engine
        return launcher, settle_strategy(config, launcher.statements, ranks.world_size, suggested_engine=engine)
    except ParallaxError as error:
        if ranks.local_rank == 0:
            raise
        # The processes of a node have the same variables: one of them tells. The others wait for it, as a launcher
        # ends all once one has ended.
        time.sleep(_ONE_TELLS_SECONDS)
        raise ElsewhereError(error.exit_code) from None


def _train(
    asked: RunConfig,
    config: RunConfig,
    launcher: Launcher,
    device: torch.device,
    world: World,
    stack: ExitStack,
    console: Console | None,
) -> int:
    display = open_display(console or build_console()) if world.is_first else SilentDisplay()
    check_ranks_agree(config, world)
    check_joined(world, device)
    folder = RunFolder(Path(config.run.dir))
    saved = world.on_first(folder.saved_config)
    config, precision = resolve_machine(config, saved, device)
    check_zero(config)
    sources = world.first_then_others(lambda: open_sources(config, display))
    world.on_first(lambda: _enter(stack, folder.lock))
    stop = stack.enter_context(StopRequest())
    config = settle_micro_batch(config, saved, world, device, precision, display.message)
    # The folder keeps what was asked for: another launcher may settle engine and shards in another way.
    asked = asked.model_copy(update={"train": config.train})
    changed = world.on_first(lambda: folder.settle(asked))
    session = open_session(config, device, precision, folder, sources, display, world)
    check_sharded(session.engine.model, config, world)
    stack.enter_context(state_kept(folder, world))
    begun_before = world.on_first(lambda: _note_start(session, asked, launcher, changed))
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


def _note_start(
    session: Session, asked: RunConfig, launcher: Launcher, changed: dict[str, tuple[Any, Any]]
) -> bool:
    """Writes down that the run starts or goes on; returns whether a process has worked here before."""
    folder = session.folder
    if changed:
        folder.save_config(asked)
    begun_before = folder.has_events()
    folder.note_event(
        "resume" if session.progress.step > 0 else "start",
        step=session.progress.step,
        ranks=session.world.ranks.world_size,
        launcher=launcher.name,
        engine=session.config.parallel.engine,
        **_source_version(),
        changed={key: list(values) for key, values in changed.items()},
    )
    return begun_before


def _source_version() -> dict[str, Any]:
    """The commit that the package's source lies in, and whether files differ from it; nothing without git."""
    git = source_git_state()
    return {} if git is None else {"git_commit": git.commit, "git_dirty": git.dirty}


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
