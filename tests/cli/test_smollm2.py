"""SmolLM2-135M, a real pretrained Llama: transformers is the oracle of everything that is done with it."""

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from small_world import Parallax
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.fetch_smollm2 import fetch_smollm2
from parallax.checkpoint.model import load_model
from parallax.data.builtin import cache_folder
from parallax.errors import DataError
from parallax.metrics.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TEXT = topics["assignment"]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The folder as transformers saves it, kept in the user's cache."""
    folder = cache_folder() / "smollm2-135m-instruct"
    try:
        fetch_smollm2(folder)
    except DataError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def theirs(smollm2: Path) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    assert isinstance(model, torch.nn.Module)
    return model.eval()


@pytest.fixture
def imported(smollm2: Path, world: Path, parallax: Parallax) -> Path:
    """SmolLM2 as a model folder of ours, named `smollm2` in the world."""
    if not (world / "smollm2").exists():
        answer = parallax("import", smollm2, "--output", "smollm2", "--format", "transformers")
        assert (answer.code, answer.err) == (0, "")
        assert "1 track(s) x 30 layers x 1 pass(es), 576 wide, 134,515,008 parameters" in answer.out
    return world / "smollm2"


@pytest.fixture(scope="module")
def ids(smollm2: Path) -> torch.Tensor:
    return AutoTokenizer.from_pretrained(smollm2)(TEXT, return_tensors="pt")["input_ids"][:, :128]


@torch.no_grad()
def assert_same_logits(folder: Path, theirs: torch.nn.Module, ids: torch.Tensor) -> None:
    logits = theirs(ids).logits
    torch.testing.assert_close(load_model(folder).model(ids), logits, rtol=0, atol=1e-4)
    assert logits.abs().max() > 5, "a comparison that shows something"


def test_imported_it_gives_the_logits_of_transformers(
    imported: Path, theirs: torch.nn.Module, ids: torch.Tensor
) -> None:
    assert_same_logits(imported, theirs, ids)


def test_in_shards_it_gives_the_logits_of_transformers(
    theirs: torch.nn.Module, ids: torch.Tensor, tmp_path: Path, parallax: Parallax
) -> None:
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="60MB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 5
    answer = parallax("import", tmp_path / "shards", "--output", tmp_path / "out", "--tokenizer", "none")
    assert (answer.code, answer.err) == (0, "")
    assert_same_logits(tmp_path / "out", theirs, ids)


def test_it_writes_what_transformers_writes(
    imported: Path, smollm2: Path, theirs: torch.nn.Module, parallax: Parallax
) -> None:
    prompt = "The three laws of motion are"
    written = parallax(
        "generate", imported, "--prompt", prompt, "--temperature", "0", "--max-new-tokens", "16", "--json"
    ).json["samples"][0]
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    start = tokenizer(prompt, return_tensors="pt")
    expected = theirs.generate(**start, do_sample=False, max_new_tokens=16)  # type: ignore[operator]
    new = expected[0, start["input_ids"].shape[1] :]
    assert len(new) == 16
    assert written["text"] == tokenizer.decode(new, skip_special_tokens=True)


def test_it_is_evaluated_and_fine_tuned_on_text(imported: Path, world: Path, parallax: Parallax) -> None:
    (world / "manual.txt").write_text(TEXT)
    report = parallax("eval", imported, "--data", "manual.txt", "--max-seq-len", "128", "--json").json
    assert report["loss"] < 3.5 < report["unigram"]["loss"], "it has read English, and Python"
    corpus = ["--tokenizer", "smollm2", "--val-fraction", "0"]
    prepared = parallax("data", "prepare", "--input", "manual.txt", "--output", "manual", *corpus)
    assert prepared.code == 0, prepared.err
    settings = {
        "data.path": "manual",
        "run.dir": "tuned",
        "model.max_seq_len": 128,
        "train.init_from": "smollm2",
        "train.global_batch": 4,
        "train.max_steps": 4,
        "train.log_every": 1,
        "train.precision": "fp32",
        "optim.lr": 1e-4,
        "optim.warmup_steps": 0,
        "tracking.mlflow": "false",
        "tracking.tensorboard": "false",
    }
    trained = parallax("train", "smollm2/config.yaml", *(f"{key}={value}" for key, value in settings.items()))
    assert trained.code == 0, trained.err
    losses = [record["loss"] for record in read_journal(world / "tuned" / "journal.jsonl")]
    assert losses[0] < 3.5, "it starts from what it knew"
    tuned = parallax("eval", "tuned", "--data", "manual.txt", "--json").json
    assert tuned["loss"] < report["loss"] - 0.2
