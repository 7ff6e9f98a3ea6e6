from typing import Any

from parallax.config.sections import TrainGoal
from parallax.errors import GoalError
from parallax.train.session import Session


def reaches_goal(record: dict[str, Any], goal: TrainGoal | None) -> bool:
    """Whether a journal record of the training batch is as good as `train.goal` asks for."""
    if goal is None:
        return False
    return bool(record["loss"] < goal.max_loss and record["accuracy"] >= goal.min_accuracy)


def reached_before(session: Session) -> bool:
    """Whether the newest checkpoint is one at which the goal was reached, so that nothing is left to do."""
    goal = session.config.train.goal
    return goal is not None and any(reaches_goal(record, goal) for record in session.records_here())


def require_goal(session: Session, *, reached: bool) -> None:
    """Called when the last step is done.

    Raises:
        GoalError: the run has a goal and did not reach it.
    """
    goal = session.config.train.goal
    if goal is not None and not reached:
        raise GoalError(
            f"{session.folder.path}: {session.progress.step} steps did not reach loss < {goal.max_loss} and "
            f"accuracy >= {goal.min_accuracy} on the training batch; the journal shows how far it came"
        )
