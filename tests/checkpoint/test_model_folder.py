"""Model folders in our own layout: written whole, verified, found by what is in them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from parallax.checkpoint.model import load_model, read_model
from parallax.checkpoint.model_folder import write_model_folder
from parallax.config.load import load_config
from parallax.config.models.dual_track import DualTrackConfig
from parallax.errors import CheckpointError
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

TOKENS = torch.tensor([[1, 2, 3, 4]])


def small(**changes: Any) -> DualTrack:
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "vocab_size": 11, "max_seq_len": 8}
    return materialize(build_model(DualTrackConfig(**(sizes | changes))), "cpu", seed=7).eval()


def write(model: DualTrack, folder: Path, **options: Any) -> Path:
    write_model_folder(folder, model.config, model.state_dict(), {"tokenizer.json": '{"type": "byte"}'}, **options)
    return folder


@pytest.mark.parametrize("changes", [{}, {"num_tracks": 3, "num_loops": 3}, {"tie_embeddings": True}])
def test_a_folder_gives_back_the_same_weights_and_configuration(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = small(**changes)
    loaded = load_model(write(model, tmp_path / "out"))
    found, expected = loaded.model.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (loaded.model_config, loaded.run_config, loaded.state) == (model.config, None, {})
    assert loaded.tokenizer_json == '{"type": "byte"}'
    assert torch.equal(loaded.model(TOKENS), model(TOKENS))


def test_a_folder_of_another_type_holds_rounded_weights(tmp_path: Path) -> None:
    model = small()
    folder = write(model, tmp_path / "out", dtype=torch.bfloat16, step=5)
    saved = read_model(folder)
    assert saved.step == 5
    assert torch.equal(saved.weights["head.weight"], model.head.weight.bfloat16())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(folder).model.head.weight.dtype == torch.float32


def test_a_run_can_begin_with_the_configuration_in_the_folder(tmp_path: Path) -> None:
    model = small(output_norm_eps=0.5)
    folder = write(model, tmp_path / "out")
    run = load_config(folder / "config.yaml", ["data.path=corpus", "train.max_steps=1", "run.dir=x"])
    assert run.model == model.config


def test_a_byte_that_changed_is_found(tmp_path: Path) -> None:
    folder = write(small(), tmp_path / "out")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match=r"the SHA-256 of model\.safetensors"):
        load_model(folder)


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    with pytest.raises(CheckpointError, match="out exists; nothing was overwritten"):
        write(small(), tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_a_writing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    model = small()
    weights = {**model.state_dict(), "broken": None}
    with pytest.raises(AttributeError):
        write_model_folder(tmp_path / "out", model.config, weights, {})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "parallax", "model": {"num_layer": 1}}, "unknown key 'model.num_layer'.*cannot build"),
        ({"model_type": "parallax"}, "model=None.*cannot build"),
        ({}, "model_type=None; expected parallax, llama, gpt2, parallel-gpt2"),
        ([], "expected a JSON object, found list"),
    ],
)
def test_a_config_that_is_none_is_refused_in_one_line(tmp_path: Path, config: Any, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said) as caught:
        read_model(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        read_model(tmp_path)
