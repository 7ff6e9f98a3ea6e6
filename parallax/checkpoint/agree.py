import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

from parallax.errors import CheckpointError

T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    error: Exception


def on_all_ranks(group: dist.ProcessGroup | None, action: Callable[[], T]) -> list[T]:
    """What `action` returns on every rank, by rank; an error on any rank is raised on all of them.

    Collective: one gather of objects. Nothing but `action` may fail between ranks that agree this way, or the
    others wait until the group's timeout.

    Args:
        group: of a CPU backend; None: this process is alone.
        action: local work, with no collective of the same group in it; its result can be pickled.

    Raises:
        Exception: what `action` raised on the lowest rank where it failed.
    """
    if group is None:
        return [action()]
    outcome: T | _Failure
    try:
        outcome = action()
    except Exception as error:
        outcome = _Failure(portable(error))
    outcomes: list[T | _Failure] = [outcome] * group.size()
    dist.all_gather_object(outcomes, outcome, group=group)
    results = []
    for value in outcomes:
        if isinstance(value, _Failure):
            raise value.error
        results.append(value)
    return results


def on_first_rank(group: dist.ProcessGroup | None, action: Callable[[], T]) -> T:
    """What `action` returns on the first rank, which alone calls it; its error is raised on all. Collective."""
    if group is None:
        return action()
    is_first = dist.get_rank(group) == 0
    results = on_all_ranks(group, lambda: action() if is_first else None)
    return results[0]  # type: ignore[return-value]


def portable(error: Exception) -> Exception:
    """The error, or where it cannot travel to other processes, one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an exception's own pickling raises
        return CheckpointError(f"{type(error).__name__}: {error}")
    return error
