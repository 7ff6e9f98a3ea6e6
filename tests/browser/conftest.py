import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from watched_page import WatchedPage

from parallax.cli.main import main
from parallax.data.prepare import prepare

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_HERE = Path(__file__).parent
_CHROMIUM = Path("/usr/bin/chromium")
_PROSE = "".join(f"Line {n} of the {n % 7}th chapter says something about {n * n}.\n" for n in range(400))
_CONFIG: dict[str, Any] = {
    "model": {
        "num_layers": 1,
        "num_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "vocab_size": 257,
        "max_seq_len": 32,
    },
    "data": {"path": "corpus"},
    "train": {"max_steps": 40, "global_batch": 4, "log_every": 5, "eval_every": 10, "save_every": 40},
    "optim": {"lr": 1e-2, "warmup_steps": 2},
    "runtime": {"num_threads": 1, "device": "cpu"},
    "tracking": {"tensorboard": False, "experiment": "tiny"},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a browser and takes long."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


def _why_no_browser() -> str | None:
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed; make setup installs it"
    return None if _CHROMIUM.exists() else f"there is no {_CHROMIUM}; as root: tests/browser/install.sh"


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Chromium without a window; without it tests are skipped, or fail where PARALLAX_REQUIRE_BROWSER=1."""
    reason = _why_no_browser()
    if reason is not None:
        if os.environ.get("PARALLAX_REQUIRE_BROWSER") == "1":
            pytest.fail(f"PARALLAX_REQUIRE_BROWSER=1, and {reason}")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root may not use the sandbox, and every page shown here is our own.
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Callable[..., WatchedPage]]:
    """Opens a page that may only load from the given origin."""
    with WatchedPage.opener(browser) as open_one:
        yield open_one


@pytest.fixture(scope="session")
def trained(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which four runs were trained, of one and two passes and two seeds, that MLflow was told of."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.stdin", io.StringIO())
        for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(variable, raising=False)
        (folder / "prose.txt").write_text(_PROSE)
        (folder / "tiny.yaml").write_text(yaml.safe_dump(_CONFIG))
        prepare(folder / "prose.txt", folder / "corpus")
        for loops in (1, 2):
            for seed in (0, 1):
                name = f"loops{loops}-seed{seed}"
                settings = [f"model.num_loops={loops}", f"seed={seed}", f"run.name={name}", f"run.dir=runs/{name}"]
                with pytest.raises(SystemExit) as left:
                    main(["train", "tiny.yaml", *settings])
                assert not left.value.code
    return folder
