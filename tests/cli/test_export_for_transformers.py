"""`parallax export --format transformers`: a folder that others run, in an environment that has no Parallax."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from clean_venv import make_clean_venv, run_clean
from hub_stand_in import TOKEN, hub_stand_in
from small_world import ONE_STEP_FROM_OUT, Parallax
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from parallax.checkpoint.model import load_model
from parallax.data.byte_tokenizer import ByteTokenizer
from parallax.metrics.flops import parameter_counts
from parallax.metrics.journal import read_journal

TEXT = "Line 3 of the 3th chapter"


@pytest.fixture
def out(world: Path) -> Iterator[Path]:
    """Where to export to; gone afterwards."""
    yield world / "out"
    shutil.rmtree(world / "out", ignore_errors=True)


def export(parallax: Parallax, *arguments: str) -> str:
    answer = parallax("export", *arguments, "--format", "transformers")
    assert (answer.code, answer.err) == (0, ""), answer.err
    return answer.out


def test_the_command_says_who_reads_it_and_how_well(parallax: Parallax, world: Path, out: Path) -> None:
    said = export(parallax, "run", "--output", "out").splitlines()
    assert said[0].endswith("as parallax; transformers (trust_remote_code=True) and Parallax read it")
    assert said[1].startswith("checked: its logits differ from the model's by at most ")
    assert {path.name for path in out.iterdir()} == {
        *("README.md", "config.json", "config.yaml", "generation_config.json", "manifest.json"),
        *("model.safetensors", "modeling_parallax.py", "tokenizer.json", "tokenizer_config.json"),
    }


def test_without_transformers_it_is_written_and_said_to_be_unchecked(
    parallax: Parallax, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallax.cli.model_files.find_spec", lambda name: None)
    assert "not checked: transformers is not installed here" in export(parallax, "run", "--output", "out")
    monkeypatch.undo()
    monkeypatch.chdir(out.parent)
    shutil.rmtree(out)
    figures = parallax("export", "run", "--output", "out", "--format", "transformers", "--json").json
    assert 0 <= figures["logit_difference"] < 1e-5
    assert (figures["model_type"], figures["step"], figures["pushed_to"]) == ("parallax", 40, None)


def test_parallax_reads_it_as_it_reads_the_run(parallax: Parallax, out: Path) -> None:
    export(parallax, "run", "--output", "out")
    (out / "README.md").write_text("changed by hand, which the manifest allows")
    ours = parallax("eval", "run", "--json").json
    theirs = parallax("eval", "out", "--data", "corpus", "--json").json
    assert {**theirs, "checkpoint": ""} == {**ours, "checkpoint": ""}
    assert parallax("import", "out", "--output", "out/back").code == 0
    back, run = load_model(out / "back").model, load_model(out.parent / "run").model
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), run.parameters(), strict=True))


def test_training_begins_with_it_on_text_of_its_tokenizer(parallax: Parallax, out: Path) -> None:
    export(parallax, "run", "--output", "out")
    answer = parallax("train", "out/config.yaml", *ONE_STEP_FROM_OUT)
    assert answer.code == 0, answer.err


def test_the_card_has_the_figures_of_the_run(parallax: Parallax, world: Path, out: Path) -> None:
    export(parallax, "run", "--output", "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    last = read_journal(world / "run" / "journal.jsonl")[-1]
    loaded = load_model(world / "run")
    for fact in (
        f"| parameters | {parameter_counts(loaded.model_config).total:,} |",
        f"| tokens trained on | {last['tokens']:,} |",
        f"| training loss | {last['loss']:.4f} nats a token (step 40) |",
        f"| validation loss | {last['val_loss']:.4f} nats a token (step 40) |",
        f"| validation bits per byte | {last['val_bits_per_byte']:.4f} (step 40) |",
        f"| fingerprint of the text | `{loaded.state['corpus']}` |",
        "| command | `parallax export run --output out --format transformers` |",
        "lr: 0.01",
        'from_pretrained("out", trust_remote_code=True)',
    ):
        assert fact in card, fact
    assert "tracking" not in card
    assert str(world) not in card


def test_an_earlier_checkpoint_s_card_ends_where_it_was_saved(parallax: Parallax, world: Path, out: Path) -> None:
    export(parallax, "run/checkpoints/step-00000020", "--output", "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    [at_20] = [record for record in read_journal(world / "run" / "journal.jsonl") if record["step"] == 20]
    assert f"| validation loss | {at_20['val_loss']:.4f} nats a token (step 20) |" in card
    assert "(step 40)" not in card


def test_a_folder_of_before_has_its_tokenizer_written_anew(parallax: Parallax, world: Path, out: Path) -> None:
    assert parallax("export", "run", "--output", "out/old").code == 0
    (out / "old" / "manifest.json").unlink()
    (out / "old" / "tokenizer_config.json").unlink()
    (out / "old" / "tokenizer.json").write_text(ByteTokenizer().to_json())
    export(parallax, "out/old", "--output", "out/new")
    assert PreTrainedTokenizerFast.from_pretrained(out / "new")("aé")["input_ids"] == [97, 195, 169]
    assert (
        "steps"
        not in (out / "new" / "README.md").read_text(encoding="utf-8").split("## The run")[1].split("##")[0]
    )


def test_one_track_in_one_pass_needs_no_code_of_ours(parallax: Parallax, world: Path, out: Path) -> None:
    shape = ["model.num_tracks=1", "model.num_loops=1", "train.max_steps=2", "run.dir=out/run"]
    assert parallax("train", "tiny.yaml", *shape).code == 0
    said = export(parallax, "out/run", "--output", "out/llama")
    assert "as llama; transformers and Parallax read it" in said
    assert not (out / "llama" / "modeling_parallax.py").exists()
    assert "trust_remote_code" not in (out / "llama" / "README.md").read_text(encoding="utf-8")


def test_a_gpt2_needs_no_code_of_ours(parallax: Parallax, out: Path) -> None:
    assert (
        parallax("train", "tiny.yaml", "model.architecture=gpt2", "train.max_steps=2", "run.dir=out/run").code == 0
    )
    said = export(parallax, "out/run", "--output", "out/gpt2")
    assert "as gpt2; transformers and Parallax read it" in said
    assert not (out / "gpt2" / "modeling_parallax.py").exists()
    tokens = torch.arange(30)[None] * 7
    theirs, ours = GPT2LMHeadModel.from_pretrained(out / "gpt2"), load_model(out / "run").model
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=0, atol=1e-5)


def test_a_variant_s_card_says_what_its_figures_are_worth(parallax: Parallax, out: Path) -> None:
    shape = ["model.num_layers=2", "train.max_steps=2", "run.dir=out/run"]
    for name, says in (("gpt2_duo_predict", True), ("gpt2_duo_predict_strict", False)):
        assert parallax("train", "tiny.yaml", f"model.architecture={name}", *shape).code == 0
        export(parallax, "out/run", "--output", "out/model")
        card = (out / "model" / "README.md").read_text(encoding="utf-8")
        assert ("the answer leaks" in card) is says
        assert ("How often it fills a gap rightly therefore says nothing" in card) is says
        shutil.rmtree(out)


def test_a_model_that_is_noisy_whenever_it_is_read_is_refused_and_nothing_is_made(
    parallax: Parallax, out: Path
) -> None:
    noisy = ["model.architecture=gpt2_drift_diffusion", "model.diffusion_at_eval=true"]
    assert parallax("train", "tiny.yaml", *noisy, "train.max_steps=2", "run.dir=out/run").code == 0
    answer = parallax("export", "out/run", "--output", "out/model", "--format", "transformers")
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert line.startswith("error: model.diffusion_at_eval=true: the file for transformers draws no noise")
    assert not (out / "model").exists()
    assert parallax("export", "out/run", "--output", "out/model").code == 0


def test_an_unknown_format_is_one_line_and_makes_nothing(parallax: Parallax, out: Path) -> None:
    answer = parallax("export", "run", "--output", "out", "--format", "tranformers")
    assert (answer.code, answer.err) == (2, "error: --format tranformers: expected auto, transformers\n")
    assert not out.exists()


@pytest.mark.slow
def test_a_push_uploads_the_code_and_the_card(parallax_process: Parallax, out: Path, tmp_path: Path) -> None:
    with hub_stand_in() as hub:
        answer = parallax_process(
            *("export", "run", "--output", "out", "--format", "transformers", "--push", "somebody/model"),
            HF_ENDPOINT=hub.url,
            HF_TOKEN=TOKEN,
            HF_HOME=str(tmp_path),
            HF_HUB_DISABLE_XET="1",
        )
    assert answer.code == 0, answer.err
    assert hub.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"README.md", "modeling_parallax.py"} <= hub.files.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["model.architecture=gpt2_parallel", "model.merge=concat", "model.num_layers=2"],
        ["model.architecture=gpt2_duo_predict"],
        ["model.architecture=gpt2", "model.attention=plla"],
    ],
    ids=["dual_track", "parallel", "duo", "plla"],
)
def test_it_runs_where_parallax_is_not_installed(
    parallax: Parallax, world: Path, out: Path, tmp_path: Path, changes: list[str]
) -> None:
    run = "out/run" if changes else "run"
    if changes:
        assert parallax("train", "tiny.yaml", *changes, "train.max_steps=10", "run.dir=out/run").code == 0
    export(parallax, run, "--output", "out/model")
    shutil.copytree(out / "model", tmp_path / "out")
    program = f"""
import json
try:
    import parallax
except ModuleNotFoundError:
    pass
else:
    raise SystemExit(f"the environment is not clean: {{parallax.__file__}}")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
model = AutoModelForCausalLM.from_pretrained("out", trust_remote_code=True, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("out", trust_remote_code=True)
one = tokenizer({TEXT!r}, return_tensors="pt")
both = tokenizer([{TEXT!r}, "Li"], return_tensors="pt", padding=True)
written = pipeline("text-generation", model=model, tokenizer=tokenizer)(
    {TEXT!r}, max_new_tokens=7, do_sample=False, return_full_text=False
)
greedy = model.generate(**both, max_new_tokens=7, do_sample=False)
with torch.no_grad():
    print(json.dumps({{
        "ids": one["input_ids"].tolist(),
        "logits": model(**one).logits.tolist(),
        "greedy": tokenizer.batch_decode(greedy[:, {len(TEXT)}:], skip_special_tokens=True),
        "written": written[0]["generated_text"],
    }}))
"""
    found = json.loads(run_clean(make_clean_venv(tmp_path / "venv"), program, tmp_path).splitlines()[-1])
    loaded = load_model(world / run)
    ids = torch.tensor([list(TEXT.encode())])
    assert found["ids"] == ids.tolist()
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["logits"]), loaded.model(ids), rtol=0, atol=1e-5)
    arguments = ["--prompt", TEXT, "--prompt", "Li", "--max-new-tokens", "7", "--temperature", "0", "--json"]
    ours = parallax("generate", run, *arguments).json["samples"]
    assert [sample["text"] for sample in ours] == found["greedy"]
    assert found["written"] == found["greedy"][0]
