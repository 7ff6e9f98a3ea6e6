"""Every contender of the scaling study trains, and what two ranks send through a slow link takes its time."""

import pytest

from evaluation.faults.network import why_no_link
from evaluation.scaling.__main__ import main

_SMALL = ["model.num_layers=1", "model.hidden_size=64", "model.intermediate_size=96", "model.vocab_size=500"]
_SETTINGS = [text for setting in [*_SMALL, "model.max_seq_len=64"] for text in ("--set", setting)]


@pytest.mark.slow
def test_the_table_has_every_contender_and_the_link(capsys: pytest.CaptureFixture[str]) -> None:
    links = [] if why_no_link() else ["--link", "50"]
    assert main(["--rounds", "2", *links, *_SETTINGS]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith(("tracks, ", "DDP", "FSDP2", "1 process"))]
    assert len(rows) == 7 + (6 if links else 0)
    assert ("50 Mbit/s" in printed) == bool(links)
