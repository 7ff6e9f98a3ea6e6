from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallax.data.prepare import prepare

PROSE = "".join(f"Line {n} of the {n % 7}th chapter says something about {n * n}.\n" for n in range(400))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of 20 kB, as bytes."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "prose.txt").write_text(PROSE)
    prepare(folder / "prose.txt", folder / "corpus")
    return folder / "corpus"


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a tiny run in `tmp_path / run`; dotted keys are given as {"optim.lr": 1e-3}."""

    def make(changes: dict[str, Any] | None = None, *, run: str = "run") -> dict[str, Any]:
        return {"data.path": str(corpus), "run.dir": str(tmp_path / run), **(changes or {})}

    return make
