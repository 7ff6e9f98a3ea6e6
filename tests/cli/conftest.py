import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_world import CONFIG, PROSE, Answer, Parallax

from parallax.cli.main import main
from parallax.data.prepare import prepare


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where built-in corpora are kept, for the whole session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def environment(cache: Path) -> dict[str, str]:
    """For commands in processes of their own."""
    return {**os.environ, "PARALLAX_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A folder as a user would have it: tiny.yaml, text, corpora of two tokenizers, a trained run."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    (folder / "prose.txt").write_text(PROSE)
    prepare(folder / "prose.txt", folder / "corpus")
    prepare(folder / "prose.txt", folder / "chars", tokenizer="char")
    done = subprocess.run(
        [sys.executable, "-m", "parallax.cli", "train", "tiny.yaml", "run.dir=run"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return folder


@pytest.fixture
def parallax(
    world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cache: Path
) -> Parallax:
    """Runs a command in this process, in `world`, as the console script does."""
    monkeypatch.chdir(world)
    monkeypatch.setenv("PARALLAX_CACHE", str(cache))

    def run(*arguments: object, typed: str = "") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return Answer(int(left.value.code or 0), shown.out, shown.err)

    return run


@pytest.fixture
def parallax_process(world: Path, environment: dict[str, str]) -> Parallax:
    """Runs a command in a process of its own, in `world` or another folder."""

    def run(*arguments: object, cwd: Path = world, timeout: float = 120, **more: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "parallax.cli", *map(str, arguments)],
            cwd=cwd,
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run
