from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from parallax.errors import DiskFullError, FencedError
from parallax.metrics.curve import save_curve_png
from parallax.metrics.environment import environment_tags
from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun
from parallax.metrics.sinks.registry import open_sinks
from parallax.runtime.heartbeat import Loss
from parallax.train.run_folder import RunFolder, RunState
from parallax.train.session import Session
from parallax.train.world import World

_STATES: dict[RunStatus, RunState] = {"FINISHED": "done", "KILLED": "stopped", "FAILED": "failed"}


@dataclass
class Outcome:
    """How the run ends, as far as is known inside `tracked`."""

    status: RunStatus = "FAILED"


@contextmanager
def state_kept(folder: RunFolder, world: World) -> Iterator[None]:
    """Says in the run folder that the run is on, and whatever error leaves the block, that it failed of it.

    How a run ends otherwise is said by `tracked`. Enter it under the lock.
    """
    world.on_first(lambda: folder.note_state("running"))
    try:
        yield
    except BaseException:
        if world.is_first:
            with suppress(DiskFullError, FencedError):
                folder.note_state("failed")
        raise


@contextmanager
def tracked(session: Session, begun_before: bool) -> Iterator[Outcome]:
    """Opens the trackers, which first get what they lack of the journal; afterwards they learn how it ended.

    Args:
        session: the run.
        begun_before: whether an earlier process has worked in this run folder.
    """
    if not session.world.is_first:
        yield Outcome()
        return
    run = _describe(session, begun_before)
    session.sinks = open_sinks(run, session.config.tracking, warn=session.display.message)
    outcome = Outcome()
    session.world.speak_last = lambda losses: _end_lost(session, losses)
    try:
        yield outcome
    finally:
        # Delivering what is left is not training time.
        with session.meter.paused():
            _end(session, outcome.status)


def _describe(session: Session, begun_before: bool) -> TrackedRun:
    return TrackedRun(
        name=session.config.run.name,
        directory=session.folder.path,
        config=session.config.resolved(),
        tags={
            **environment_tags(session.engine.device),
            "data.fingerprint": session.sources.fingerprint,
            "tokenizer.fingerprint": session.sources.tokenizer.fingerprint,
        },
        history=read_journal(session.folder.journal),
        resumed_step=session.progress.step if begun_before else None,
    )


def _end_lost(session: Session, losses: Sequence[Loss]) -> None:
    """The last words of the first rank: a rank that vanished may come back, one that failed fails again."""
    if all(loss.is_own_error for loss in losses):
        _end(session, "FAILED")
        return
    with suppress(FencedError):
        session.folder.note_state("lost")
    _end(session, "FAILED")


def _end(session: Session, status: RunStatus) -> None:
    """Writes down how the run ended, and lets the trackers know whatever happens.

    A disk that is full here too does not hide what the run failed of. Where the run was claimed by another
    process, nothing is said: it and its trackers are that one's now.
    """
    if session.folder.lock.is_lost:
        return
    try:
        session.folder.note_state(_STATES[status])
        session.folder.note_event("end", step=session.progress.step, status=status)
        session.profiler.close()
        _hand_over_files(session)
    except DiskFullError as error:
        if status != "FAILED":
            raise
        session.display.message(str(error))
    finally:
        session.sinks.close(status)


def _hand_over_files(session: Session) -> None:
    """The resolved configuration and the curve so far, for the trackers to keep."""
    session.sinks.artifact(session.folder.config)
    records = read_journal(session.folder.journal)
    if records:
        picture = session.folder.path / "curve.png"
        save_curve_png(records, picture, title=session.config.run.name)
        session.sinks.artifact(picture)
