import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.errors import ConfigError, DiskFullError, run_and_explain
from parallax.metrics.curve import save_curve_png
from parallax.metrics.environment import environment_tags
from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun
from parallax.metrics.sinks.registry import open_sinks
from parallax.runtime.lock import RunLock
from parallax.runtime.stop import StopRequest
from parallax.train.display import open_display
from parallax.train.goal import reached_before, require_goal
from parallax.train.loop import run_loop
from parallax.train.run_folder import RunFolder
from parallax.train.session import Session
from parallax.train.setup import open_session, resolve_machine
from parallax.train.sources import open_sources
from parallax.train.summary import describe_end, describe_start


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
    display = open_display(console or Console())
    folder = RunFolder(Path(config.run.dir))
    config, device, precision = resolve_machine(config, folder)
    sources = open_sources(config, display)
    with RunLock(folder.path), StopRequest() as stop:
        changed = folder.settle(config)
        session = open_session(config, device, precision, folder, sources, display)
        if changed:
            folder.save_config(config)
        resumed = session.progress.step > 0
        folder.note_event(
            "resume" if resumed else "start",
            step=session.progress.step,
            changed={key: list(values) for key, values in changed.items()},
        )
        for line in describe_start(session, changed):
            display.message(line)
        reached = reached_before(session)
        if reached or session.progress.step >= session.total_steps:
            require_goal(session, reached=reached)
            return 0
        complete = _run(session, stop, resumed)
        for line in describe_end(session, complete):
            display.message(line)
        return 0 if complete else stop.exit_code


def _run(session: Session, stop: StopRequest, resumed: bool) -> bool:
    """The loop, with trackers that learn how it truly ended."""
    session.sinks = open_sinks(_tracked(session, resumed), session.config.tracking, warn=session.display.message)
    status: RunStatus = "FAILED"
    session.display.begin(session.progress.step, session.total_steps)
    try:
        complete = run_loop(session, stop)
        status = "FINISHED" if complete else "KILLED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        session.display.end()
        _end_records(session, status)
    return complete


def _end_records(session: Session, status: RunStatus) -> None:
    """Writes down how the run ended, and lets the trackers know whatever happens.

    A disk that is full here too does not hide what the run failed of.
    """
    try:
        session.folder.note_event("end", step=session.progress.step, status=status)
        session.profiler.close()
        _hand_over_files(session)
    except DiskFullError as error:
        if status != "FAILED":
            raise
        session.display.message(str(error))
    finally:
        session.sinks.close(status)


def _tracked(session: Session, resumed: bool) -> TrackedRun:
    return TrackedRun(
        name=session.config.run.name,
        directory=session.folder.path,
        config=session.config.resolved(),
        tags={
            **environment_tags(session.engine.device),
            "data.fingerprint": session.sources.corpus.fingerprint,
            "tokenizer.fingerprint": session.sources.tokenizer.fingerprint,
        },
        history=read_journal(session.folder.journal),
        resumed_step=session.progress.step if resumed else None,
    )


def _hand_over_files(session: Session) -> None:
    """The resolved configuration and the curve so far, for the trackers to keep."""
    session.sinks.artifact(session.folder.config)
    records = read_journal(session.folder.journal)
    if records:
        picture = session.folder.path / "curve.png"
        save_curve_png(records, picture, title=session.config.run.name)
        session.sinks.artifact(picture)
