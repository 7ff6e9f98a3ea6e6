from collections.abc import Callable
from pathlib import Path

import pytest

from parallax.checkpoint.store import CheckpointStore


@pytest.fixture
def reports() -> list[str]:
    """What the store of `make_store` said."""
    return []


@pytest.fixture
def make_store(tmp_path: Path, reports: list[str]) -> Callable[[int], CheckpointStore]:
    """A store over `RUN/checkpoints` that keeps the given number of checkpoints."""

    def make(keep_last: int = 9) -> CheckpointStore:
        return CheckpointStore(tmp_path / "run" / "checkpoints", keep_last, report=reports.append)

    return make


@pytest.fixture
def store(make_store: Callable[[int], CheckpointStore]) -> CheckpointStore:
    """One that deletes nothing within a test."""
    return make_store(9)
