"""The comparison of bytes at the reference shape; what it sends does not depend on the vocabulary's size."""

import re
from pathlib import Path

import pytest

from evaluation.ledger import main


@pytest.mark.slow
def test_tracks_send_a_fraction_of_what_tensor_parallelism_sends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", "model.vocab_size=64"]) == 0
    shown = capsys.readouterr().out
    assert ratios(shown) == {"copy_reduce": 24.0, "vocab_split": 15.97}
    assert "tensor parallelism: 384.00 MiB sent" in shown
    assert "Every ledger equals its formula." in shown


_PAIRS = """
model:
  {architecture: gpt2_parallel, num_layers: 24, num_heads: 2, hidden_size: 64, vocab_size: 64, max_seq_len: 16}
data: {path: none}
train: {max_steps: 1, global_batch: 1, micro_batch: 1}
"""


@pytest.mark.slow
def test_pairs_of_gpt2_medium_send_a_quarter_of_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "pairs.yaml"
    config.write_text(_PAIRS)
    assert main(["--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert ratios(shown) == {"copy_reduce": 4.0, "vocab_split": 3.68}
    assert "Every ledger equals its formula." in shown


def test_an_architecture_of_one_track_has_nothing_to_compare(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "one.yaml"
    config.write_text(_PAIRS.replace("gpt2_parallel", "gpt2"))
    assert main(["--config", str(config)]) == 2
    assert "model.architecture=gpt2: this compares tracks: dual_track, gpt2_parallel" in capsys.readouterr().err


def ratios(shown: str) -> dict[str, float]:
    found = re.findall(r"^(\w+) sends 1/([\d.]+) of the bytes of tensor parallelism", shown, re.MULTILINE)
    return {name: float(ratio) for name, ratio in found}
