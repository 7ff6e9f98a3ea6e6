from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from parallax.config.layout import Layout
from parallax.errors import DiskFullError, FencedError, is_out_of_memory
from parallax.metrics.curve import save_curve_png
from parallax.metrics.environment import environment_tags
from parallax.metrics.hardware import hardware_tags
from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun
from parallax.metrics.sinks.registry import open_sinks
from parallax.runtime.heartbeat import Loss
from parallax.train.run_folder import RunFolder, RunState
from parallax.train.session import Session
from parallax.train.system import find_nodes, system_sampled
from parallax.train.world import World

_STATES: dict[RunStatus, RunState] = {"FINISHED": "done", "KILLED": "stopped"}


@dataclass
class Outcome:
    """How the run ends, as far as is known inside `tracked`."""

    status: RunStatus = "FAILED"


@contextmanager
def state_kept(folder: RunFolder, world: World) -> Iterator[None]:
    """Says in the run folder that the run is on, and of an error that leaves the block whether it failed of it.

    A good end is said by `tracked`. Enter it under the lock.
    """
    world.on_first(lambda: folder.note_state("running"))
    if world.is_first:
        world.speak_last = lambda losses: folder.note_state(_judge(losses), final=True)
    try:
        yield
    except BaseException as error:
        if world.is_first:
            # A failed collective is most likely the effect of a lost rank, and this process soon killed for it.
            lost = world.mesh is not None and isinstance(error, RuntimeError) and not is_out_of_memory(error)
            with suppress(DiskFullError, FencedError):
                folder.note_state("lost" if lost else "failed")
        raise


def _judge(losses: Sequence[Loss]) -> RunState:
    """A rank that vanished may come back; one that ended with an error of its own would do so again."""
    return "failed" if all(loss.is_own_error for loss in losses) else "lost"


@contextmanager
def tracked(session: Session, begun_before: bool) -> Iterator[Outcome]:
    """Opens the trackers, which first get what they lack of the journal; afterwards they learn how it ended.

    Meanwhile each node samples itself. Collective on its way in.

    Args:
        session: the run.
        begun_before: whether an earlier process has worked in this run folder.
    """
    nodes = find_nodes(session.world)
    if not session.world.is_first:
        with system_sampled(session, nodes):
            yield Outcome()
        return
    run = _describe(session, begun_before, len(nodes.names))
    session.folder.note_tags(run.tags)
    session.sinks = open_sinks(run, session.config.tracking, warn=session.display.message)
    outcome = Outcome()
    say = session.world.speak_last

    def speak_last(losses: Sequence[Loss]) -> None:
        say(losses)
        _end(session, "FAILED")

    session.world.speak_last = speak_last
    try:
        with system_sampled(session, nodes):
            yield outcome
    finally:
        # Delivering what is left is not training time.
        with session.meter.paused():
            _end(session, outcome.status)


def _describe(session: Session, begun_before: bool, num_nodes: int) -> TrackedRun:
    return TrackedRun(
        name=session.config.run.name,
        directory=session.folder.path,
        config=session.config.resolved(),
        tags={
            **environment_tags(session.engine.device),
            **hardware_tags(session.engine.device, num_nodes),
            **_layout_tags(session),
            "data.fingerprint": session.sources.fingerprint,
            "tokenizer.fingerprint": session.sources.tokenizer.fingerprint,
        },
        history=read_journal(session.folder.journal),
        resumed_step=session.progress.step if begun_before else None,
    )


def _layout_tags(session: Session) -> dict[str, str]:
    """How the ranks of this start are arranged, and who steps."""
    mesh = session.world.mesh
    layout = mesh.layout if mesh is not None else Layout(track=1, dp_replicate=1, dp_shard=1)
    return {
        "layout.world_size": str(layout.world_size),
        "layout.track": str(layout.track),
        "layout.dp_replicate": str(layout.dp_replicate),
        "layout.dp_shard": str(layout.dp_shard),
        "layout.engine": session.config.parallel.engine,
    }


def _end(session: Session, status: RunStatus) -> None:
    """Writes down how the run ended, and lets the trackers know whatever happens.

    A disk that is full here too does not hide what the run failed of. Where the run was claimed by another
    process, nothing is said: it and its trackers are that one's now.
    """
    if session.folder.lock.is_lost:
        return
    try:
        if status in _STATES:
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
