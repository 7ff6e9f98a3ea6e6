"""Weights of the original implementation: the same logits, or one line that says why not."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_model import Original
from safetensors.torch import save_file
from torch import Tensor

from parallax.checkpoint.foreign.original import read_original
from parallax.checkpoint.load import load_weights
from parallax.checkpoint.model import load_model
from parallax.cli.main import main
from parallax.errors import CheckpointError, ConfigError
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

CONFIG: dict[str, Any] = {
    "block_size": 16,
    "vocab_size": 37,
    "n_layer": 2,
    "n_head": 4,
    "n_kv_heads": 2,
    "n_embd": 40,
    "dropout": 0.1,
    "bias": False,
    "num_loops": 2,
    "use_swap": True,
    "activation": "swiglu",
    "norm_eps": 0.1,
}
"""An epsilon far from the output norm's, and a width of which 8/3 is not whole."""
TOKENS = torch.arange(30).reshape(2, 15) * 7 % 37


@torch.no_grad()
def original(**changes: Any) -> Original:
    model = Original(CONFIG | changes)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.normal_(float(parameter.dim() == 1), 0.15, generator=generator)
    return model.eval()


def imported(path: Path, config_file: Path | None = None) -> DualTrack:
    config, weights = read_original(path, config_file)
    model = materialize(build_model(config, attention_backend="eager"), "cpu")
    load_weights(model, weights, source=path)
    return model.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes an original model and its configuration as JSON beside it."""

    def save(model: Original, drop: str = "", **others: Tensor) -> Path:
        path = tmp_path / "weights.pt"
        torch.save(
            {name: t for name, t in model.state_dict().items() if not drop or drop not in name} | others, path
        )
        (tmp_path / "weights.json").write_text(json.dumps(model.c))
        return path

    return save


@pytest.mark.parametrize("num_kv_heads", [None, 1, 2])
@pytest.mark.parametrize("use_swap", [True, False])
@pytest.mark.parametrize("num_loops", [1, 2, 3])
def test_imported_weights_give_the_original_logits(
    saved: Callable[..., Path], num_loops: int, use_swap: bool, num_kv_heads: int | None
) -> None:
    model = original(num_loops=num_loops, use_swap=use_swap, n_kv_heads=num_kv_heads)
    found = imported(saved(model))
    with torch.no_grad():
        torch.testing.assert_close(found(TOKENS), model(TOKENS), rtol=0, atol=1e-5)
    assert found.config.dropout == 0.1
    assert found.config.intermediate_size == 106


def test_the_command_gives_the_original_logits(saved: Callable[..., Path], tmp_path: Path) -> None:
    model = original()
    with pytest.raises(SystemExit) as left:
        main(["import", str(saved(model)), "--output", str(tmp_path / "out"), "--tokenizer", "none"])
    assert left.value.code == 0
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "out").model(TOKENS), model(TOKENS), rtol=0, atol=1e-5)


def test_buffers_may_be_missing_and_weights_be_safetensors(saved: Callable[..., Path], tmp_path: Path) -> None:
    model = original()
    path = saved(model).with_suffix(".safetensors")
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("freqs")}
    save_file(weights, path)
    with torch.no_grad():
        torch.testing.assert_close(imported(path)(TOKENS), model(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("absent", [True, False])
def test_a_head_that_is_the_embedding_is_tied(saved: Callable[..., Path], absent: bool) -> None:
    model = original()
    model.lm_head.weight = model.tok_emb.weight
    found = imported(saved(model, drop="lm_head" if absent else ""))
    assert found.head.weight is found.embedding.weight
    with torch.no_grad():
        torch.testing.assert_close(found(TOKENS), model(TOKENS), rtol=0, atol=1e-5)


def test_the_configuration_is_found_in_the_meta_file_of_the_same_step(tmp_path: Path) -> None:
    model = original(num_loops=3)
    torch.save({"model": {f"_orig_mod.{n}": t for n, t in model.state_dict().items()}}, tmp_path / "model_0020.pt")
    torch.save({"config": CONFIG, "step": 10}, tmp_path / "meta_0010.pt")
    torch.save({"config": model.c, "step": 20}, tmp_path / "meta_0020.pt")
    found = imported(tmp_path / "model_0020.pt")
    assert found.config.num_loops == 3
    assert imported(tmp_path / "model_0020.pt", tmp_path / "meta_0010.pt").config.num_loops == 2
    (tmp_path / "meta_0020.pt").unlink()
    (tmp_path / "config.json").write_text(json.dumps(model.c))
    with pytest.raises(CheckpointError, match=r"that differ: meta_0010\.pt, config\.json; name one with --config"):
        read_original(tmp_path / "model_0020.pt")


class _Trap:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("place", ["weights", "meta", "bare pickle"])
def test_pickled_code_is_refused_and_not_run(saved: Callable[..., Path], tmp_path: Path, place: str) -> None:
    path = saved(original())
    trap = _Trap(tmp_path / "executed")
    if place == "weights":
        torch.save({"tok_emb.weight": trap}, path)
    elif place == "meta":
        (tmp_path / "weights.json").unlink()
        torch.save({"config": CONFIG, "note": trap}, tmp_path / "meta_1.pt")
    else:
        path.write_bytes(pickle.dumps({"tok_emb.weight": trap}))
    with pytest.raises(CheckpointError, match="could run code; nothing of it was executed") as caught:
        read_original(path)
    assert "weights_only=False" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bias": True}, "bias=True, and layers here have none"),
        ({"activation": "gelu"}, "activation='gelu', and the feed-forward layer here is a SwiGLU"),
        ({"rope_base": 5e5}, r"rope_base=500000\.0 is no key of the original layout"),
        ({"n_embd": "wide"}, "n_embd='wide': expected a whole number"),
        ({"n_layer": 3}, r"lacks track_a\.2\.norm1\.weight, .* and 15 more"),
        ({"vocab_size": 36}, r"does not fit: tok_emb\.weight is 37x40, not 36x40"),
    ],
)
def test_what_cannot_be_represented_is_refused_in_one_line(
    saved: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = saved(original())
    (tmp_path / "weights.json").write_text(json.dumps(CONFIG | changes))
    with pytest.raises((CheckpointError, ConfigError), match=said) as caught:
        read_original(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["n_head", "activation", "norm_eps"])
def test_a_missing_key_is_not_guessed(saved: Callable[..., Path], tmp_path: Path, key: str) -> None:
    path = saved(original())
    (tmp_path / "weights.json").write_text(json.dumps({k: v for k, v in CONFIG.items() if k != key}))
    with pytest.raises(CheckpointError, match=f"{key} is missing"):
        read_original(path)


def test_a_tensor_that_the_layout_does_not_have_is_refused(saved: Callable[..., Path]) -> None:
    path = saved(original(), **{"track_a.0.attn.wq.bias": torch.zeros(40)})
    with pytest.raises(CheckpointError, match=r"has the unknown track_a\.0\.attn\.wq\.bias"):
        read_original(path)


def test_tables_of_another_rotary_base_are_refused(saved: Callable[..., Path]) -> None:
    angles = torch.outer(torch.arange(16), 500_000.0 ** -(torch.arange(5) / 5))
    with pytest.raises(CheckpointError, match="freqs_cos holds the cosines of another rotary base"):
        read_original(saved(original(), freqs_cos=angles.cos()))
    assert read_original(saved(original(), freqs_cos=original().freqs_cos.bfloat16()[None, :, None]))


def test_a_missing_configuration_says_where_it_was_looked_for(saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved(original())
    (tmp_path / "weights.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"looked for weights\.json, meta_\*\.json, meta_\*\.pt and config\.json"
    ):
        read_original(path)
    (tmp_path / "weights.json").write_text('{"steps": 3}')
    with pytest.raises(CheckpointError, match="holds no configuration of the original layout"):
        read_original(path)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"not a pickle")
    (tmp_path / "a.safetensors").write_bytes(b"{")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, said in (("a.pt", "a.pt"), ("a.safetensors", "safetensors"), ("list.pt", "holds no weights")):
        with pytest.raises(CheckpointError, match=said):
            read_original(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such file"):
        read_original(tmp_path / "b.pt")
