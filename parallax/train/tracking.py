from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from parallax.errors import DiskFullError
from parallax.metrics.curve import save_curve_png
from parallax.metrics.environment import environment_tags
from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun
from parallax.metrics.sinks.registry import open_sinks
from parallax.train.session import Session


@dataclass
class Outcome:
    """How the run ends, as far as is known inside `tracked`."""

    status: RunStatus = "FAILED"


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
    session.world.speak_last = lambda: _end(session, "FAILED")
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


def _end(session: Session, status: RunStatus) -> None:
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


def _hand_over_files(session: Session) -> None:
    """The resolved configuration and the curve so far, for the trackers to keep."""
    session.sinks.artifact(session.folder.config)
    records = read_journal(session.folder.journal)
    if not records:
        return
    picture = session.folder.path / "curve.png"
    try:
        save_curve_png(records, picture, title=session.config.run.name)
    except (ImportError, MemoryError) as error:
        # The library that draws is loaded here, where a run that trained to its end may have no memory left.
        reason = " ".join(str(error).split()) or type(error).__name__
        session.display.message(f"the curve was not drawn ({reason}); the journal has it")
        return
    session.sinks.artifact(picture)
