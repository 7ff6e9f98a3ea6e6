"""`parallax fill`: gaps in texts, and how well they are filled."""

from pathlib import Path

import pytest
from small_world import Parallax

SIZES = [f"model.{key}" for key in ("num_layers=2", "num_heads=2", "hidden_size=32", "intermediate_size=48")]
RUNS = {"published": "duo-published", "strict": "duo-strict"}


@pytest.fixture
def trained(world: Path, parallax: Parallax) -> dict[str, str]:
    """Folders of trained models of both masks, made on first use."""
    for mask, folder in RUNS.items():
        if not (world / folder).exists():
            name = "gpt2_duo_predict" + ("_strict" if mask == "strict" else "")
            made = parallax("train", "tiny.yaml", f"run.dir={folder}", f"model.architecture={name}", *SIZES)
            assert made.code == 0, made.err
    return RUNS


def test_the_likeliest_tokens_of_a_gap_come_first(trained: dict[str, str], parallax: Parallax) -> None:
    answer = parallax("fill", trained["strict"], "--prompt", "chapte___ says", "--top", 257, "--json")
    assert (answer.code, answer.err) == (0, "")
    [filled] = answer.json["filled"]
    shares = [candidate["probability"] for candidate in filled["candidates"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_what_stands_after_the_gap_and_before_it_matters(trained: dict[str, str], parallax: Parallax) -> None:
    def first(text: str) -> list[dict[str, object]]:
        return parallax("fill", trained["strict"], "--prompt", text, "--json").json["filled"][0]["candidates"]

    assert first("chapte___ says") != first("chapte___. says")
    assert first("chapte___ says") != first("Line 1___ says")
    assert first("x" * 200 + "chapte___ says"), "a text longer than the window loses its beginning"


def test_both_are_measured_and_the_published_mask_is_said_to_leak(
    trained: dict[str, str], parallax: Parallax
) -> None:
    for mask, folder in trained.items():
        measured = parallax("fill", folder, "--json").json
        assert measured["leaks"] == (mask == "published")
        assert measured["next_token"]["loss"] == pytest.approx(parallax("eval", folder, "--json").json["loss"])
        assert ("figures say nothing" in parallax("fill", folder).out) == measured["leaks"]


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        ("strict", "no gap", "--prompt 'no gap': expected one gap, written ___"),
        ("strict", "a ___ b ___ c", "--prompt 'a ___ b ___ c': expected one gap, written ___"),
        ("strict", "nothing follows ___", "nothing stands after the gap"),
        ("published", "a___c", "cannot fill one; train gpt2_duo_predict_strict"),
        (None, "a___c", "model.architecture=dual_track predicts no gaps; gpt2_duo_predict_strict does"),
    ],
)
def test_mistakes_are_a_line(
    model: str | None, text: str, message: str, trained: dict[str, str], parallax: Parallax
) -> None:
    answer = parallax("fill", trained[model] if model else "run", "--prompt", text)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert answer.err.count("\n") == 1
