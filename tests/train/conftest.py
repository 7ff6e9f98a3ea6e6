from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from parallax.data.prepare import prepare
from parallax.metrics.peak import Peak

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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves out of the runs in this process what takes as long as they do; processes of their own do all."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("parallax.train.setup.measure_peak", lambda *_: Peak(1e11, "assumed by the tests"))
    monkeypatch.setattr("parallax.train.tracking.save_curve_png", lambda _, path, title: path.touch())
    yield
    torch.set_num_threads(threads)
