import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.tracking.store import open_folder, why_no_postgres


@pytest.fixture
def servers_folder() -> Iterator[Path]:
    """For a server's files: the user `postgres` may enter it, as he may not pytest's own."""
    with open_folder() as made:
        yield made


@pytest.fixture
def postgres() -> None:
    """Skips where PostgreSQL is missing, or fails where PARALLAX_REQUIRE_POSTGRES=1."""
    reason = why_no_postgres()
    if reason is not None:
        if os.environ.get("PARALLAX_REQUIRE_POSTGRES") == "1":
            pytest.fail(f"PARALLAX_REQUIRE_POSTGRES=1, and {reason}")
        pytest.skip(reason)
