"""What several ranks saved is read by everything that reads the checkpoints of one process."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from sharded_steps import checkpoint_group
from worker_pool import WorkerPool

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.model import load_model, read_model
from parallax.checkpoint.sharded_store import ShardedStore
from parallax.checkpoint.store import CheckpointStore
from parallax.cli.main import main
from parallax.config.load import check_config, dump_config
from parallax.config.run import RunConfig
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize
from parallax.runtime.piece import Piece

PoolOf = Callable[[int], WorkerPool]
TOKENS = torch.tensor([[1, 2, 3, 4]])
TEXTS = {"tokenizer.json": '{"type": "byte"}'}


def config(tie: bool) -> RunConfig:
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "vocab_size": 257, "max_seq_len": 8}
    model = sizes | {"tie_embeddings": tie}
    raw = {"model": model, "data": {"path": "corpus"}, "train": {"max_steps": 1, "global_batch": 1}}
    return check_config(raw, source="test")


def trained(tie: bool) -> DualTrack:
    return materialize(build_model(config(tie).model), "cpu", seed=7)


def save_rows(folder: Path, tie: bool) -> None:
    """As one of two ranks that hold half the rows of everything."""
    rank = dist.get_rank()

    def piece(tensor: torch.Tensor) -> Piece:
        middle = len(tensor) // 2
        rows = slice(0, middle) if rank == 0 else slice(middle, None)
        return Piece(tensor.detach()[rows], rank * middle, tensor.shape)

    weights = {name: piece(parameter) for name, parameter in trained(tie).named_parameters()}
    store = ShardedStore(folder / "checkpoints", 9, group=checkpoint_group())
    texts = TEXTS | {"config.yaml": dump_config(config(tie))}
    moments = {f"exp_avg/{name}": piece for name, piece in weights.items()}
    for step in (1, 2):
        store.save(step, pieces=weights, optimizer_pieces=moments, state={"step": step}, texts=texts)


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def tie(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def run(tie: bool, tmp_path: Path, pool_of: PoolOf) -> Path:
    pool_of(2).run(save_rows, tmp_path / "run", tie)
    return tmp_path / "run"


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Any]]:
    """Runs a command; its exit code, and what stdout and stderr say."""

    def call(*arguments: object) -> tuple[int, Any]:
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return int(left.value.code or 0), shown.out + shown.err

    return call


def test_a_model_computes_what_the_saved_one_did(run: Path, tie: bool) -> None:
    assert torch.equal(load_model(run).model(TOKENS), trained(tie).eval()(TOKENS))
    assert read_model(run).texts == TEXTS


def test_it_is_exported_as_what_one_process_saved(
    run: Path, tie: bool, tmp_path: Path, command: Callable[..., Any]
) -> None:
    store = CheckpointStore(tmp_path / "alone" / "checkpoints", 9)
    texts = TEXTS | {"config.yaml": dump_config(config(tie))}
    store.save(2, weights=trained(tie).state_dict(keep_vars=True), optimizer={}, state={}, texts=texts)
    for name in ("run", "alone"):
        assert command("export", tmp_path / name, "--output", tmp_path / f"{name}-out")[0] == 0
    first, second = (load_model(tmp_path / f"{name}-out").model.state_dict() for name in ("run", "alone"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_convert_writes_what_one_process_would_have(
    run: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    code, said = command("checkpoint", "convert", run, "--output", tmp_path / "whole")
    assert (code, "step-00000002, step 2: written to" in said) == (0, True)
    whole, sharded = read_checkpoint(tmp_path / "whole"), read_checkpoint(run)
    assert {"model.safetensors", "optimizer.safetensors"} < {file.name for file in whole.path.iterdir()}
    for found, expected in ((whole.weights, sharded.weights), (whole.optimizer, sharded.optimizer)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (whole.step, whole.state, whole.texts) == (2, {"step": 2}, sharded.texts)
    code, said = command("checkpoint", "convert", run, "--output", tmp_path / "whole")
    assert (code, "whole exists; nothing was overwritten" in said) == (2, True)


def test_list_and_verify_tell_the_damaged_one(run: Path, command: Callable[..., Any]) -> None:
    code, said = command("checkpoint", "verify", run / "checkpoints" / "step-00000002")
    assert (code, "step 2, 7 files, every byte as saved" in said) == (0, True)
    assert [line.split()[-1] for line in command("checkpoint", "verify", run)[1].splitlines()[1:]] == ["good"] * 2
    file = run / "checkpoints" / "step-00000002" / "model-rank-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    code, said = command("checkpoint", "list", run, "--json")
    assert code == 0
    assert [(c["step"], c["ranks"], c["problem"]) for c in json.loads(said)["checkpoints"]] == [
        (1, 2, None),
        (2, 2, None),
    ]
    code, said = command("checkpoint", "verify", run)
    assert code == 2
    assert "step-00000002: the SHA-256 of model-rank-00001.safetensors is" in said
    assert "error: 1 of 2 checkpoints cannot be used" in said
    code, said = command("checkpoint", "verify", run / "checkpoints" / "step-00000002")
    assert (code, "is damaged: the SHA-256 of model-rank-00001" in said) == (2, True)


@pytest.mark.parametrize("name", ["list", "verify"])
def test_a_folder_without_checkpoints_is_said_to_be_one(
    name: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    code, said = command("checkpoint", name, tmp_path)
    assert (code, f"error: {tmp_path} holds no checkpoint" in said) == (2, True)
