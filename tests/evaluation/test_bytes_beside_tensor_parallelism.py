"""The comparison of bytes at the reference shape; what it sends does not depend on the vocabulary's size."""

import re

import pytest

from evaluation.ledger import main


@pytest.mark.slow
def test_tracks_send_a_fraction_of_what_tensor_parallelism_sends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", "model.vocab_size=64"]) == 0
    shown = capsys.readouterr().out
    ratios = dict(re.findall(r"^(\w+) sends 1/([\d.]+) of the bytes of tensor parallelism", shown, re.MULTILINE))
    assert {name: float(ratio) for name, ratio in ratios.items()} == {"copy_reduce": 24.0, "vocab_split": 15.97}
    assert "tensor parallelism: 384.00 MiB sent" in shown
    assert "Every ledger equals its formula." in shown
