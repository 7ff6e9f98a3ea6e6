"""An environment that has what this one has, except Parallax."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def make_clean_venv(folder: Path) -> Path:
    """The interpreter of a new virtual environment that sees this one's packages.

    They are on its path, but files of paths among them are not read there, which is how an editable install is
    found; a package that was copied in would be seen, and the caller's check of it fail.
    """
    venv.create(folder, with_pip=False)
    inner = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (inner / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def clean_environment(home: Path) -> dict[str, str]:
    """Variables for a process there: no network, caches under `home`, and none of this process's search path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(home / "hf")}
    return {**kept, **offline, "OMP_NUM_THREADS": "1"}


def run_clean(python: Path, program: str, cwd: Path) -> str:
    """What a program writes on stdout, run there."""
    done = subprocess.run(
        [str(python), "-c", program],
        cwd=cwd,
        env=clean_environment(cwd),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
