"""What importing the package does, and which parts may import which."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import parallax

ROOT = Path(__file__).parents[1]
LIGHT = ["parallax", "parallax.errors", "parallax.config.load", "parallax.config.run"]
HEAVY = ("torch", "numpy", "mlflow", "datasets", "tensorboard", "matplotlib", "plotext", "transformers")


def modules_loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    program = f"import sys; {statement}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    loaded = modules_loaded_by(f"import {module}")
    assert module in loaded
    assert not loaded.intersection(HEAVY)


def test_the_model_loads_torch_and_no_other_heavy_library() -> None:
    loaded = modules_loaded_by("import parallax.model.registry")
    assert "torch" in loaded
    assert not loaded.intersection(set(HEAVY) - {"torch", "numpy"})


@pytest.mark.parametrize("name", [name for name in parallax.__all__ if name != "__version__"])
def test_a_public_name_is_the_object_it_stands_for(name: str) -> None:
    found = getattr(parallax, name)
    assert found is getattr(import_module(parallax._PUBLIC[name]), name)
    assert found.__name__ == name


def test_public_names_are_listed_and_others_refused() -> None:
    assert dir(parallax) == sorted(parallax.__all__)
    assert parallax.__version__
    with pytest.raises(AttributeError, match="module 'parallax' has no attribute 'DoubleTrack'"):
        _ = parallax.DoubleTrack


def imported_names(path: Path) -> set[str]:
    """Every dotted name that a source file imports, whole or from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ["model", "attention"])
def test_the_model_does_not_know_of_distribution(room: str) -> None:
    # The import contracts can name whole packages only, and torch itself is allowed.
    sources = list((ROOT / "parallax" / room).rglob("*.py"))
    assert sources
    for path in sources:
        forbidden = [name for name in imported_names(path) if name.startswith("torch.distributed")]
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden[0]}"
        assert "torch.distributed" not in path.read_text(encoding="utf-8"), path.relative_to(ROOT)


def test_the_import_contracts_hold() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
