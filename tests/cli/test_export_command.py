"""`parallax export`: a folder that generate, eval and transformers read, and the hub receives."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_stand_in import TOKEN, hub_stand_in
from small_world import ONE_STEP_FROM_OUT, PROSE, Parallax
from transformers import AutoModelForCausalLM, AutoTokenizer

from parallax.checkpoint.model import load_model


@pytest.fixture
def out(world: Path) -> Iterator[Path]:
    """Where to export to; gone afterwards."""
    yield world / "out"
    shutil.rmtree(world / "out", ignore_errors=True)


def test_an_exported_run_is_evaluated_and_written_with_as_the_run_itself(parallax: Parallax, out: Path) -> None:
    answer = parallax("export", "run", "--output", "out")
    assert (answer.code, answer.err) == (0, "")
    assert "run/checkpoints/step-00000040, step 40: written to out as parallax; Parallax reads it (2 track(s)" in (
        answer.out
    )
    ours = parallax("eval", "run", "--json").json
    theirs = parallax("eval", "out", "--data", "corpus", "--json").json
    assert {**theirs, "checkpoint": ""} == {**ours, "checkpoint": ""}
    arguments = ["--prompt", "Line 3", "--max-new-tokens", "20", "--json"]
    written = [parallax("generate", model, *arguments).json["samples"] for model in ("run", "out")]
    assert written[0] == written[1]


def test_a_model_without_a_run_has_no_text_to_be_evaluated_on(parallax: Parallax, out: Path) -> None:
    assert parallax("export", "run", "--output", "out").code == 0
    answer = parallax("eval", "out")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "error: out came without a run, so there is no text that it was validated on; give --data\n"
    )


def test_what_is_exported_can_be_imported_and_exported_again(parallax: Parallax, world: Path, out: Path) -> None:
    out.mkdir()
    assert parallax("export", "run", "--output", "out/first").code == 0
    assert parallax("import", "out/first", "--output", "out/second").code == 0
    assert parallax("export", "out/second", "--output", "out/third").code == 0
    for name in ("model.safetensors", "config.json", "config.yaml", "tokenizer.json"):
        first = (world / "out/first" / name).read_bytes()
        assert first == (world / "out/second" / name).read_bytes() == (world / "out/third" / name).read_bytes()


def test_one_track_in_one_pass_is_read_by_transformers_with_its_tokenizer(
    parallax: Parallax, world: Path, out: Path
) -> None:
    shape = ["model.num_tracks=1", "model.num_loops=1", "model.num_kv_heads=1", "train.max_steps=3"]
    vocabulary = json.loads((world / "chars" / "meta.json").read_text())["vocab_size"]
    trained = parallax(
        "train", "tiny.yaml", "run.dir=out/run", "data.path=chars", f"model.vocab_size={vocabulary}", *shape
    )
    assert trained.code == 0, trained.err
    answer = parallax("export", "out/run", "--output", "out/llama", "--json").json
    assert (answer["model_type"], answer["step"]) == ("llama", 3)
    text = PROSE[:30]
    ids = AutoTokenizer.from_pretrained(world / "out/llama")(text, return_tensors="pt")["input_ids"]
    theirs = AutoModelForCausalLM.from_pretrained(world / "out/llama", dtype=torch.float32)
    with torch.no_grad():
        ours = load_model(world / "out/run").model(ids)
        torch.testing.assert_close(theirs(ids).logits, ours, rtol=0, atol=1e-5)
    again = parallax("import", "out/llama", "--output", "out/back", "--format", "transformers", "--json").json
    assert again["model"]["num_kv_heads"] == 1
    back, run = load_model(world / "out/back").model, load_model(world / "out/run").model
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), run.parameters(), strict=True))


def test_a_run_can_start_from_an_exported_folder(parallax: Parallax, out: Path) -> None:
    assert parallax("export", "run", "--output", "out").code == 0
    answer = parallax("train", "out/config.yaml", *ONE_STEP_FROM_OUT)
    assert answer.code == 0, answer.err
    wrong = [*ONE_STEP_FROM_OUT[:-5], "data.path=chars", "run.dir=out/wrong"]
    answer = parallax("train", "out/config.yaml", *wrong)
    assert answer.code == 2
    assert "out was trained with another tokenizer" in answer.err


@pytest.mark.parametrize("private", [True, False])
def test_a_push_uploads_every_file_of_the_folder(
    parallax_process: Parallax, out: Path, tmp_path: Path, private: bool
) -> None:
    with hub_stand_in() as hub:
        answer = parallax_process(
            *("export", "run", "--output", "out", "--push", "somebody/model"),
            *(["--private"] if private else []),
            HF_ENDPOINT=hub.url,
            HF_TOKEN=TOKEN,
            HF_HOME=str(tmp_path),
            HF_HUB_DISABLE_XET="1",
        )
    assert answer.code == 0, answer.err
    assert f"pushed to {hub.url}/somebody/model" in answer.out
    [created] = hub.created
    assert (created["organization"], created["name"]) == ("somebody", "model")
    assert created.get("visibility", "public") == ("private" if private else "public")
    assert hub.commits == 1
    assert hub.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(hub.objects) == 1, "the weights went by the way of large files"


def test_a_push_that_is_refused_keeps_the_folder(parallax_process: Parallax, out: Path, tmp_path: Path) -> None:
    with hub_stand_in() as hub:
        answer = parallax_process(
            *("export", "run", "--output", "out", "--push", "somebody/model"),
            HF_ENDPOINT=hub.url,
            HF_TOKEN="hf_wrong",
            HF_HOME=str(tmp_path),
        )
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert line.startswith("error: somebody/model was not pushed to http://127.0.0.1")
    assert "hf upload somebody/model out" in line
    assert load_model(out)


def test_a_push_to_a_hub_that_is_not_there_keeps_the_folder(
    parallax_process: Parallax, out: Path, tmp_path: Path
) -> None:
    answer = parallax_process(
        *("export", "run", "--output", "out", "--push", "somebody/model"),
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_TOKEN=TOKEN,
        HF_HOME=str(tmp_path),
    )
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert "somebody/model was not pushed to http://127.0.0.1:9" in line
    assert load_model(out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run --output corpus", "corpus exists; nothing was overwritten"),
        ("rum --output out", "no such checkpoint or run folder; did you mean run"),
        ("run --output out --dtype int8", "--dtype int8: expected fp32, bf16, fp16"),
        ("run --output out --private", "--private says how --push makes the repository"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(parallax: Parallax, out: Path, arguments: str, said: str) -> None:
    answer = parallax("export", *arguments.split())
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert said in line
    assert not out.exists()
