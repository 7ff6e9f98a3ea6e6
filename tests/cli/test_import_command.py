"""`parallax import`: a model from elsewhere as a folder that every command reads."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_world import ONE_STEP_FROM_OUT, Parallax
from tokenizers import pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

from parallax.checkpoint.foreign.names import ORIGINAL, to_foreign
from parallax.checkpoint.foreign.original_config import config_from_original
from parallax.checkpoint.model import load_model
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

CONFIG = {
    "block_size": 32,
    "vocab_size": 257,
    "n_layer": 1,
    "n_head": 2,
    "n_kv_heads": None,
    "n_embd": 32,
    "dropout": 0.0,
    "bias": False,
    "num_loops": 2,
    "use_swap": True,
    "activation": "swiglu",
    "norm_eps": 1e-5,
}
TOKENS = torch.arange(30)[None] * 7


@pytest.fixture(scope="module")
def theirs(world: Path) -> DualTrack:
    """A model of the original layout, saved in the world as `original/model_1.pt` with its meta file."""
    config = config_from_original(CONFIG, "test", tied=False)
    model = materialize(build_model(config), "cpu", seed=3).eval()
    (world / "original").mkdir()
    torch.save(to_foreign(ORIGINAL, config, model.state_dict()), world / "original" / "model_1.pt")
    torch.save({"config": CONFIG, "step": 1}, world / "original" / "meta_1.pt")
    return model


@pytest.fixture
def out(world: Path) -> Iterator[Path]:
    """Where to import to; gone afterwards."""
    yield world / "out"
    shutil.rmtree(world / "out", ignore_errors=True)


def test_the_original_layout_can_be_evaluated_and_written_with(
    parallax: Parallax, theirs: DualTrack, out: Path
) -> None:
    answer = parallax("import", "original/model_1.pt", "--output", "out", "--tokenizer", "byte")
    assert (answer.code, answer.err) == (0, "")
    assert "2 track(s) x 1 layers x 2 pass(es), 32 wide" in answer.out
    assert "next: parallax generate out" in answer.out
    with torch.no_grad():
        assert torch.equal(load_model(out).model(TOKENS), theirs(TOKENS))
    assert parallax("generate", "out", "--prompt", "Line", "--max-new-tokens", "5").code == 0
    report = parallax("eval", "out", "--data", "prose.txt", "--max-seq-len", "16", "--json").json
    assert report["tokens"] > 1000
    assert parallax("eval", "out", "--data", "builtin:python-manual", "--batch-size", "64", "--json").code == 0


def test_a_gpt2_with_its_two_tokenizer_files_can_be_written_with(parallax: Parallax, out: Path) -> None:
    out.mkdir()
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=32, n_layer=2, n_head=2, n_positions=32)).eval()
    theirs.save_pretrained(out / "gpt2")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, "<|endoftext|>"])}
    (out / "gpt2" / "vocab.json").write_text(json.dumps(vocabulary))
    (out / "gpt2" / "merges.txt").write_text("#version: 0.2\n")
    answer = parallax("import", "out/gpt2", "--output", "out/ours")
    assert (answer.code, answer.err) == (0, "")
    assert "1 track(s) x 2 layers x 1 pass(es), 32 wide" in answer.out
    assert "tokenizer: 257 ids" in answer.out
    loaded = load_model(out / "ours")
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(TOKENS), theirs(TOKENS).logits, rtol=0, atol=1e-5)
    answer = parallax("generate", "out/ours", "--prompt", "Line é", "--max-new-tokens", "5", "--json")
    assert answer.code == 0, answer.err
    assert (
        parallax("data", "prepare", "--input", "prose.txt", "--output", "out/data", "--tokenizer", "out/ours").code
        == 0
    )
    start = ["train.init_from=out/ours", "data.path=out/data", "run.dir=out/run", "train.max_steps=1"]
    answer = parallax("train", "out/ours/config.yaml", *ONE_STEP_FROM_OUT, *start)
    assert answer.code == 0, answer.err
    answer = parallax(
        "train", "out/ours/config.yaml", *ONE_STEP_FROM_OUT, *start, "model.norm_eps=0.1", "run.dir=out/b"
    )
    assert "was trained with model.norm_eps=1e-05, this run has 0.1" in answer.err


def test_weights_may_come_without_a_tokenizer_but_not_by_oversight(
    parallax: Parallax, theirs: DualTrack, out: Path
) -> None:
    answer = parallax("import", "original/model_1.pt", "--output", "out")
    assert answer.code == 2
    assert "comes without a tokenizer.json; give the tokenizer it was trained with" in answer.err
    assert not out.exists()
    assert parallax("import", "original/model_1.pt", "--output", "out", "--tokenizer", "none").code == 0
    assert load_model(out).tokenizer_json is None
    for command in (["generate", "out"], ["eval", "out", "--data", "corpus"]):
        answer = parallax(*command)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert "out came without a tokenizer, so text cannot be read or written with it" in answer.err
    start = ["run.dir=out/run", "train.init_from=out", "model.output_norm_eps=1e-6", "model.intermediate_size=85"]
    answer = parallax("train", "tiny.yaml", *start)
    assert answer.code == 2
    assert "import it again with --tokenizer" in answer.err


def test_a_run_must_have_the_output_norm_of_the_weights_it_starts_from(
    parallax: Parallax, theirs: DualTrack, out: Path
) -> None:
    assert parallax("import", "original/model_1.pt", "--output", "out", "--tokenizer", "byte").code == 0
    start = ["run.dir=out/run", "train.init_from=out", "model.intermediate_size=85", "train.max_steps=1"]
    answer = parallax("train", "tiny.yaml", *start)
    assert answer.code == 2
    assert "model.output_norm_eps=1e-06, this run has 1e-05; set model.output_norm_eps=1e-06" in answer.err
    assert parallax("train", "tiny.yaml", *start, "model.output_norm_eps=1e-6").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nowhere.pt --output out", "nowhere.pt: no such file or folder"),
        ("original/model_1.pt --output corpus --tokenizer byte", "corpus exists; nothing was overwritten"),
        ("original/model_1.pt --output out --format gguf", "--format gguf: expected auto, original, transformers"),
        ("original --output out", "original has no config.json"),
        ("original/model_1.pt --output out --format transformers", "original/model_1.pt has no config.json"),
        ("original --output out --format original", "original is a folder; name the file of weights in it"),
        ("original/model_1.pt --output out --config nowhere.json", "nowhere.json: no such file"),
        ("original/model_1.pt --output out --tokenizer char", "would be learned from text"),
        ("original/model_1.pt --output out --tokenizer nowhere.json", "nowhere.json"),
        ("original/model_1.pt --output out --tokenizer large.json", "the tokenizer has 300 ids and the model 257"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    parallax: Parallax, theirs: DualTrack, world: Path, out: Path, arguments: str, said: str
) -> None:
    vocabulary = {"<eos>": 299, "a": 0}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}
    (world / "large.json").write_text(json.dumps({"version": "1.0", "model": model}))
    answer = parallax("import", *arguments.split())
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert said in line
    assert not out.exists()
