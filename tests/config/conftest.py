from collections.abc import Callable
from pathlib import Path

import pytest

SMALLEST = """\
model:
  num_layers: 2
  num_heads: 4
  hidden_size: 16
  vocab_size: 257
  max_seq_len: 32
data:
  path: corpus
train:
  max_steps: 10
  global_batch: 16
optim:
  lr: 1e-3
"""


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    """Writes YAML text to a file `run.yaml` and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def smallest(write_config: Callable[[str], Path]) -> Path:
    """A file with the keys that have no default, and a few others."""
    return write_config(SMALLEST)


@pytest.fixture
def smallest_text() -> str:
    """What the file `smallest` holds."""
    return SMALLEST
