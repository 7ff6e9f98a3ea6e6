"""`parallax generate` and `eval` under torchrun: the tokens and the loss of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from parallax.checkpoint.store import CheckpointStore
from parallax.config.load import check_config, dump_config
from parallax.data.build_tokenizer import build_tokenizer
from parallax.model.registry import build_model, materialize

_MODEL = {"num_layers": 1, "num_heads": 2, "hidden_size": 32, "vocab_size": 257, "max_seq_len": 32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    text = yaml.safe_dump({"model": _MODEL, "data": {"path": "none"}, "train": {"max_steps": 1}})
    config = check_config(yaml.safe_load(text), "tested")
    model = materialize(build_model(config.model), "cpu", seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    tokenizer = build_tokenizer("byte", list)
    (folder / "text.txt").write_text("Some text that nobody has trained on, of a few windows.\n" * 9)
    return CheckpointStore(folder / "checkpoints", keep_last=1).save(
        1,
        weights=model.state_dict(keep_vars=True),
        optimizer={},
        state={},
        texts={"config.yaml": dump_config(config), "tokenizer.json": tokenizer.to_json()},
    )


def run(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", "localhost:0"]
    return subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else []), "-m", "parallax.cli", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def printed(ranks: int, *arguments: str) -> Any:
    done = run(ranks, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_ranks_write_the_tokens_of_one_process(checkpoint: Path) -> None:
    asked = ["generate", str(checkpoint), "--prompt", "The ", "--prompt", "A", "--max-new-tokens", "50"]
    assert printed(2, *asked) == printed(1, *asked)


@pytest.mark.slow
def test_two_ranks_measure_the_loss_of_one_process(checkpoint: Path) -> None:
    asked = ["eval", str(checkpoint), "--data", str(checkpoint.parents[1] / "text.txt")]
    shared, alone = printed(2, *asked), printed(1, *asked)
    assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert (shared["tokens"], shared["unigram"]) == (alone["tokens"], alone["unigram"])


@pytest.mark.slow
def test_more_ranks_than_tracks_are_refused(checkpoint: Path) -> None:
    done = run(3, "generate", str(checkpoint))
    assert done.returncode != 0
    assert "3 ranks cannot share the 2 track(s)" in done.stderr
