"""Every contender of the scaling study trains, and what two ranks send through a slow link takes its time."""

from pathlib import Path

import pytest
from rich.console import Console

from evaluation.faults.network import why_no_link
from evaluation.scaling import crossover, two_nodes
from evaluation.scaling.__main__ import main

_SMALL = ["model.num_layers=1", "model.hidden_size=64", "model.intermediate_size=96", "model.vocab_size=500"]
_SETTINGS = [text for setting in [*_SMALL, "model.max_seq_len=64"] for text in ("--set", setting)]


_LINK = why_no_link()


def _rows(printed: str) -> list[str]:
    names = ("tracks, ", "DDP", "1 process", "tensor parallel")
    return [line for line in printed.splitlines() if line.startswith(names) and ": half" not in line]


@pytest.mark.slow
def test_the_table_has_the_contenders_and_the_link(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    only = [text for name in ("tracks, vocab_split", "tensor parallel") for text in ("--only", name)]
    arguments = ["--rounds", "2", *_SETTINGS, *only, "--output", str(tmp_path)]
    arguments += [] if _LINK else ["--link", "50"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    first_tables = _rows(printed)
    assert len(first_tables) == 4 + (0 if _LINK else 4)
    assert ("50 Mbit/s" in printed) == (not _LINK)
    assert "optimizer " in printed
    assert main(arguments) == 0
    assert _rows(capsys.readouterr().out) == first_tables, "kept, not measured"


@pytest.mark.slow
@pytest.mark.skipif(_LINK is not None, reason=str(_LINK))
def test_what_crosses_the_link_between_two_nodes_is_counted() -> None:
    settings = {"config": "configs/reference.yaml", "overrides": [*_SMALL, "model.max_seq_len=64"]}
    batch = ["train.global_batch=2", "train.micro_batch=2"]
    settings["overrides"] += batch
    seconds, carried = two_nodes.time_steps(
        two_nodes.ACROSS, {**settings, "precision": "fp32"}, 50.0, rows=2, rounds=1, console=Console()
    )
    states = 2 * 64 * 64 * 4
    assert seconds > 0
    # Half of the rows, four all-reduces and two swaps of their states, by each of two ranks on a node.
    assert 6 * states < carried < 2 * 6 * states


@pytest.mark.slow
@pytest.mark.skipif(_LINK is not None, reason=str(_LINK))
def test_the_crossover_is_predicted_observed_and_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = [
        "--set",
        "model.hidden_size=64",
        "--set",
        "model.intermediate_size=96",
        "--set",
        "model.max_seq_len=32",
    ]
    assert crossover.main(["--rounds", "1", "--rows", "2", "8", "--output", str(tmp_path), *small]) in (0, 1)
    assert "DDP sends fewer bytes above" in capsys.readouterr().out
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_an_unknown_contender_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "TP", *_SETTINGS]) == 2
    assert "tensor parallel" in capsys.readouterr().err
