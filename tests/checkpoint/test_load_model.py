from pathlib import Path
from typing import Any

import pytest
import torch

import parallax
from parallax.checkpoint.model import load_model
from parallax.checkpoint.store import CheckpointStore
from parallax.config.load import check_config, dump_config
from parallax.config.run import RunConfig
from parallax.errors import CheckpointError
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

TOKENIZER = '{"type": "byte"}'
TOKENS = torch.tensor([[1, 2, 3, 4]])


def _config(**model: Any) -> RunConfig:
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "vocab_size": 11, "max_seq_len": 8}
    raw = {"model": sizes | model, "data": {"path": "corpus"}, "train": {"max_steps": 1, "global_batch": 1}}
    return check_config(raw, source="test")


def _save(
    store: CheckpointStore, config: RunConfig, texts: dict[str, str] | None = None
) -> tuple[DualTrack, Path]:
    model = materialize(build_model(config.model), "cpu", seed=7)
    if texts is None:
        texts = {"config.yaml": dump_config(config), "tokenizer.json": TOKENIZER}
    path = store.save(1, weights=model.state_dict(), optimizer={}, state={"progress": {"step": 1}}, texts=texts)
    return model, path


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_a_loaded_model_computes_what_the_saved_one_did(store: CheckpointStore, tie_embeddings: bool) -> None:
    config = _config(tie_embeddings=tie_embeddings, dropout=0.5)
    model, path = _save(store, config)
    loaded = load_model(path)
    assert torch.equal(loaded.model(TOKENS), model.eval()(TOKENS))
    assert not loaded.model.training
    assert (loaded.run_config, loaded.tokenizer_json, loaded.path) == (config, TOKENIZER, path)
    assert loaded.model_config == config.model
    assert loaded.state == {"progress": {"step": 1}}
    if tie_embeddings:
        assert loaded.model.head.weight is loaded.model.embedding.weight


def test_a_model_can_be_loaded_in_another_type(store: CheckpointStore) -> None:
    model, path = _save(store, _config())
    loaded = load_model(path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert torch.equal(loaded.model.embedding.weight, model.embedding.weight.bfloat16())


def test_the_package_offers_it_by_run_folder(store: CheckpointStore) -> None:
    model, _ = _save(store, _config())
    assert torch.equal(parallax.load_model(store.folder.parent).model.norm.weight, model.norm.weight)


def test_weights_that_do_not_fit_the_configuration_are_refused(store: CheckpointStore) -> None:
    texts = {"config.yaml": dump_config(_config(num_layers=2)), "tokenizer.json": TOKENIZER}
    _, path = _save(store, _config(), texts)
    with pytest.raises(CheckpointError, match=r"another architecture: 12 weights missing \(tracks\.0\.blocks\.1"):
        load_model(path)


def test_a_configuration_of_an_unknown_architecture_is_refused(store: CheckpointStore) -> None:
    text = dump_config(_config()).replace("dual_track", "triple_track")
    _, path = _save(store, _config(), {"config.yaml": text, "tokenizer.json": TOKENIZER})
    with pytest.raises(CheckpointError, match=r"config\.yaml: .*triple_track.*cannot build that model") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["config.yaml", "tokenizer.json"])
def test_a_checkpoint_without_its_texts_is_refused(store: CheckpointStore, missing: str) -> None:
    texts = {"config.yaml": dump_config(_config()), "tokenizer.json": TOKENIZER}
    del texts[missing]
    _, path = _save(store, _config(), texts)
    with pytest.raises(CheckpointError, match=f"has no {missing}, so no model can be built"):
        load_model(path)
