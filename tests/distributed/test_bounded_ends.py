"""Whatever happens to one of four ranks, all processes are gone within the deadline, and say why."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from evaluation.faults.network import Link, why_no_link
from evaluation.faults.study import behind
from evaluation.faults.trial import End, Trial
from evaluation.faults.worker import Setup
from parallax.runtime.flight import read_dump
from parallax.runtime.watchdog import LOST_EXIT_CODE

DEADLINE_SECONDS = 12.0
KILLED = -9


def end_of(setup: Setup, fault: str, link: Link | None = None) -> End:
    with Trial(setup) as trial:
        trial.train().wait_for_parked()
        return trial.after(link.cut if link else getattr(trial, fault))


def assert_all_are_told(setup: Setup, collective: str, reason: str) -> set[str]:
    """Every survivor's dump names the victim, where it was, and what it did last, and has the stacks.

    Returns the reasons they give.
    """
    reasons = set()
    for rank in set(range(4)) - {setup.victim}:
        record, stacks = read_dump(setup.folder / "flight" / f"rank-{rank}.txt")
        losses = {loss["rank"]: loss for loss in record["lost"]}  # type: ignore[attr-defined]
        loss = losses[setup.victim]
        assert reason in loss["reason"]
        reasons.add(loss["reason"])
        assert (loss["last"]["step"], loss["last"]["phase"]) == (setup.park_step, setup.park), json.dumps(loss)
        assert collective in loss["last"]["collective"]
        assert record["last_collectives"]
        # Where it hung; or where gloo threw it out of, or was just about to, before the cause was known.
        assert "run_rank" in stacks + (record["error"] or "")  # type: ignore[operator]
        assert "watchdog.py" in stacks
    return reasons


@pytest.mark.parametrize(
    ("victim", "park", "collective"),
    [(2, "forward", "mesh_dp_shard"), (0, "update", "all_reduce"), (3, "backward", "all_gather")],
)
def test_a_killed_rank_ends_the_run(victim: int, park: str, collective: str, tmp_path: Path) -> None:
    setup = Setup(tmp_path, DEADLINE_SECONDS, victim=victim, park=park)
    end = end_of(setup, "kill")
    assert end.seconds < DEADLINE_SECONDS
    assert [code for rank, code in enumerate(end.codes) if rank != victim] == [LOST_EXIT_CODE] * 3
    assert end.codes[victim] == KILLED
    assert_all_are_told(setup, collective, "its connection dropped")


@pytest.mark.parametrize(("victim", "park"), [(1, "backward"), (0, "forward")])
def test_a_stopped_rank_ends_the_run_and_is_gone_itself(victim: int, park: str, tmp_path: Path) -> None:
    setup = Setup(tmp_path, DEADLINE_SECONDS, victim=victim, park=park)
    end = end_of(setup, "stop")
    assert end.seconds < DEADLINE_SECONDS
    assert [code for rank, code in enumerate(end.codes) if rank != victim] == [LOST_EXIT_CODE] * 3
    assert end.codes[victim] == KILLED
    # Whoever is sure first kills the stopped process, whose connection then drops for those who are slower.
    assert any("no sign of life" in reason for reason in assert_all_are_told(setup, "", ""))


def test_a_rank_that_loses_its_network_ends_the_run_on_both_sides(tmp_path: Path) -> None:
    if (reason := why_no_link()) is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        link = stack.enter_context(Link())
        setup = behind(link, Setup(tmp_path, DEADLINE_SECONDS, victim=3, park="update"))
        end = end_of(setup, "", link)
    assert end.seconds < DEADLINE_SECONDS
    assert end.codes[1:3] == [LOST_EXIT_CODE] * 2
    # These two lose each other, and share a processor: whoever waited longer for the other kills it.
    assert {end.codes[0], end.codes[3]} <= {LOST_EXIT_CODE, KILLED}
    assert_all_are_told(setup, "", "no sign of life")
    record, _ = read_dump(tmp_path / "flight" / "rank-3.txt")
    assert [loss["rank"] for loss in record["lost"]] == [0]  # type: ignore[attr-defined]


def test_a_rank_with_an_error_of_its_own_says_so_to_the_others(tmp_path: Path) -> None:
    setup = Setup(tmp_path, DEADLINE_SECONDS, victim=2, park="forward", raises=True)
    with Trial(setup) as trial:
        trial.train()
        end = trial.after(lambda: None)
    assert end.seconds < DEADLINE_SECONDS
    assert [code for rank, code in enumerate(end.codes) if rank != 2] == [LOST_EXIT_CODE] * 3
    assert end.codes[2] == 1
    assert_all_are_told(setup, "", "it failed: ArithmeticError: the victim's own mistake")
