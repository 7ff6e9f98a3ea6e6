import math
from typing import Any

from parallax.metrics.journal import OTHER_VALIDATION
from parallax.runtime.stop import StopRequest
from parallax.train.due import due_after
from parallax.train.goal import reaches_goal, require_goal
from parallax.train.guard import non_finite
from parallax.train.report import sample_text, step_record, validate
from parallax.train.session import Session
from parallax.train.step import train_step


def run_loop(session: Session, stop: StopRequest) -> bool:
    """Trains until the last step, the goal, or a request to stop; logs, measures, samples and saves when due.

    After a step, in this order: the journal line, with the validation loss and the sample where they are due,
    then the checkpoint. No checkpoint is ahead of the journal.

    Returns:
        Whether the run is complete; False: it was asked to stop before its end, and has saved.

    Raises:
        NonFiniteError: a loss, the gradient norm or a weight was NaN or infinite; nothing was saved since.
        GoalError: the last step was done without reaching `train.goal`.
    """
    progress, config, world = session.progress, session.config, session.world
    reached = False
    stopped = world.mesh is None and stop.signal is not None
    while progress.step < session.total_steps and not reached and not stopped:
        world.begin_step(progress.step + 1, stop)
        with session.profiler.around(progress.step + 1):
            result = train_step(
                config,
                session.total_steps,
                session.flops_per_token,
                session.engine,
                session.sources.loader,
                session.guard,
                progress,
                world.dp,
            )
        session.meter.step(result.sums.tokens)
        session.display.tick(progress.step)

        due = due_after(progress.step, session.total_steps, config)
        improved = False
        if due.log or session.checks_every_step:
            session.check_finite()
        if due.log:
            record = step_record(session, result)
            reached = reaches_goal(record, config.train.goal)
            with session.meter.paused():
                if due.evaluate:
                    improved = _note_validation(session, record)
                if due.sample:
                    record["sample"] = sample_text(session)
                session.publish(record)
        if due.save or improved or reached:
            session.save(best=improved)
        stopped = world.must_stop(stop)

    if progress.step < session.total_steps and not reached:
        session.save()
        session.finish_saving()
        return False
    session.finish_saving()
    require_goal(session, reached=reached)
    return True


def _note_validation(session: Session, record: dict[str, Any]) -> bool:
    """Adds the validation figures to the record; returns whether this step is the best so far and to be kept."""
    record |= validate(session)
    measured = [value for key, value in record.items() if key == "val_loss" or key.startswith(OTHER_VALIDATION)]
    if not all(map(math.isfinite, measured)):
        raise non_finite(session.progress.step, session.last_checkpoint())
    loss, best = record.get("val_loss"), session.progress.best_val_loss
    if loss is None:
        return False
    if best is not None and loss >= best:
        return False
    session.progress.best_val_loss = loss
    session.progress.validated_on = session.validation_name
    return session.config.train.save_best
