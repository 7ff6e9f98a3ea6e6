"""`parallax generate`: text from a trained model."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_world import Parallax


def texts(answer: Any) -> list[str]:
    assert (answer.code, answer.err) == (0, "")
    return [sample["text"] for sample in answer.json["samples"]]


def test_text_follows_the_prompt(parallax: Parallax) -> None:
    answer = parallax("generate", "run", "--prompt", "Line ", "--max-new-tokens", 30)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("Line ")
    assert 10 < len(answer.out) <= len("Line ") + 30 + 1


def test_json_is_one_object_and_holds_what_is_otherwise_streamed(parallax: Parallax) -> None:
    asked = ["generate", "run", "--prompt", "Line ", "--max-new-tokens", 30]
    found = parallax(*asked, "--json").json
    assert found["checkpoint"] == "run/checkpoints/step-00000040"
    [sample] = found["samples"]
    assert (sample["prompt"], sample["finished"]) == ("Line ", "length")
    assert parallax(*asked).out == "Line " + sample["text"] + "\n"


def test_the_seed_decides_what_is_drawn(parallax: Parallax) -> None:
    def drawn(seed: int) -> list[str]:
        return texts(parallax("generate", "run", "--prompt", "Line ", "--seed", seed, "--json"))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_prompts_of_unequal_length_are_continued_as_each_would_be_alone(parallax: Parallax) -> None:
    likeliest = ["--temperature", 0, "--max-new-tokens", 12, "--json"]
    prompts = [
        "L",
        "Line 7 of the 7th chapter says",
        "something about a prompt that is longer than the whole window",
    ]
    together = parallax("generate", "run", *(part for text in prompts for part in ("--prompt", text)), *likeliest)
    assert [sample["prompt"] for sample in together.json["samples"]] == prompts
    alone = [texts(parallax("generate", "run", "--prompt", prompt, *likeliest)) for prompt in prompts]
    assert texts(together) == [text for [text] in alone]
    assert len(set(texts(together))) == 3


def test_several_samples_of_a_prompt_differ_and_the_first_is_the_one_drawn_alone(parallax: Parallax) -> None:
    asked = ["generate", "run", "--prompt", "Line ", "--max-new-tokens", 20]
    [alone] = texts(parallax(*asked, "--json"))
    several = texts(parallax(*asked, "--num-samples", 3, "--json"))
    assert several[0] == alone
    assert len(set(several)) == 3
    shown = parallax(*asked, "--num-samples", 3).out
    assert [line for line in shown.splitlines() if line.startswith("--- ")] == [f"--- {n} of 3" for n in (1, 2, 3)]
    assert all(f"\nLine {text}" in shown for text in several)


def test_greedy_text_does_not_depend_on_the_seed(parallax: Parallax) -> None:
    asked = ["generate", "run", "--prompt", "Line ", "--temperature", 0, "--json"]
    assert texts(parallax(*asked, "--seed", 1)) == texts(parallax(*asked, "--seed", 2))


def test_the_likeliest_token_alone_is_greedy_text(parallax: Parallax) -> None:
    asked = ["generate", "run", "--prompt", "Line ", "--max-new-tokens", 20, "--json"]
    greedy = texts(parallax(*asked, "--temperature", 0))
    for narrow in (["--top-k", 1], ["--top-p", 1e-6], ["--min-p", 1]):
        assert texts(parallax(*asked, *narrow)) == greedy


def test_a_repetition_penalty_makes_other_text(parallax: Parallax) -> None:
    asked = ["generate", "run", "--prompt", "Line ", "--temperature", 0, "--json"]
    assert texts(parallax(*asked)) != texts(parallax(*asked, "--repetition-penalty", 5))


def test_without_a_prompt_a_document_is_begun(parallax: Parallax) -> None:
    [sample] = parallax("generate", "run", "--max-new-tokens", 5, "--json").json["samples"]
    assert sample["prompt"] == ""


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_weights_can_be_halved(dtype: str, parallax: Parallax) -> None:
    assert len(texts(parallax("generate", "run", "--prompt", "Line ", "--dtype", dtype, "--json"))[0]) > 100


def test_text_goes_on_past_the_window(parallax: Parallax) -> None:
    [text] = texts(parallax("generate", "run", "--prompt", "Line ", "--max-new-tokens", 100, "--json"))
    assert len(text.encode()) > 90, "the window has 32 tokens"


@pytest.mark.parametrize("name", ["run", "run/best", "run/checkpoints", "run/checkpoints/step-00000020"])
def test_a_checkpoint_can_be_named_in_several_ways(name: str, parallax: Parallax) -> None:
    step = 20 if name.endswith("20") else 40
    asked = parallax("generate", name, "--max-new-tokens", 1, "--json")
    assert Path(asked.json["checkpoint"]).name == f"step-{step:08d}"


def test_a_conversation_lasts_until_the_input_ends(parallax: Parallax) -> None:
    asked = ["generate", "run", "--max-new-tokens", 10]
    answer = parallax(*asked, "--interactive", typed="Line 1\nLine 2\n")
    assert (answer.code, answer.err) == (0, "")
    first, second = (
        parallax(*asked, "--prompt", prompt, "--seed", seed).out
        for seed, prompt in enumerate(["Line 1", "Line 2"])
    )
    assert answer.out == f"Type a prompt and Enter; Ctrl-D ends.\n> {first}> {second}> \n"


def test_a_conversation_may_begin_with_prompts_from_the_command_line(parallax: Parallax) -> None:
    asked = ["generate", "run", "--max-new-tokens", 10, "--prompt", "Line 1"]
    answer = parallax(*asked, "--interactive", typed="")
    assert answer.out == parallax(*asked).out + "Type a prompt and Enter; Ctrl-D ends.\n> \n"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(world: Path, environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m parallax.cli generate run --prompt Line --max-new-tokens 400 | head -c 20"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=world,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("Line")
    assert "Traceback" not in done.stderr
