"""Folders of transformers' GPT-2, read and written: transformers itself is the oracle."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import fill_generously
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from zoo_models import VARIANTS, zoo_config

from parallax.checkpoint.foreign.plain import plain_format
from parallax.checkpoint.model import load_model, read_model
from parallax.checkpoint.model_folder import write_model_folder
from parallax.errors import CheckpointError
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model, materialize

SIZES: dict[str, Any] = {
    "vocab_size": 41,
    "n_embd": 30,
    "n_layer": 3,
    "n_head": 6,
    "n_positions": 24,
    "n_inner": 53,
    "layer_norm_epsilon": 0.03,
    "bos_token_id": None,
    "eos_token_id": 40,
}
"""Odd where a size may be odd; an epsilon that shows."""
TOKENS = torch.arange(40).reshape(2, 20) * 11 % 41


@torch.no_grad()
def saved_gpt2(folder: Path, **changes: Any) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel(GPT2Config(**(SIZES | changes))).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        parameter.normal_(float("ln_" in name and name.endswith("weight")), 0.15, generator=generator)
    model.save_pretrained(folder)
    return model


def our_model(name: str = "gpt2", **changes: Any) -> Decoder:
    config = zoo_config(name, vocab_size=41, max_seq_len=24, **changes)
    model = materialize(build_model(config), "cpu", seed=0)
    fill_generously(model, 0)
    return model.eval()


@torch.no_grad()
def assert_same_logits(ours: Decoder, theirs: GPT2LMHeadModel) -> None:
    torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"n_inner": None}, {"reorder_and_upcast_attn": True}])
def test_a_gpt2_folder_gives_the_logits_of_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = saved_gpt2(tmp_path / "gpt2", **changes)
    ours = load_model(tmp_path / "gpt2").model
    assert ours.head.weight is ours.embedding.weight
    assert ours.config.dropout == 0.1
    assert_same_logits(ours, theirs)


def test_tensors_are_read_with_and_without_a_prefix_and_with_what_old_folders_have_besides(tmp_path: Path) -> None:
    theirs = saved_gpt2(tmp_path / "gpt2")
    file = tmp_path / "gpt2" / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    tensors |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 24, 24, dtype=torch.bool) for layer in range(3)}
    save_file(tensors, file)
    assert_same_logits(load_model(tmp_path / "gpt2").model, theirs)
    save_file(tensors | {"lm_head.weight": tensors["wte.weight"].clone()}, file)
    assert_same_logits(load_model(tmp_path / "gpt2").model, theirs)
    save_file(tensors | {"lm_head.weight": tensors["wte.weight"] + 1}, file)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from transformer\.wte\.weight"):
        read_model(tmp_path / "gpt2")


@pytest.mark.parametrize("width", [12, 30])
def test_a_gpt2_is_exported_as_one_and_comes_back_bit_for_bit(tmp_path: Path, width: int) -> None:
    ours = our_model(hidden_size=width)
    plain, _ = plain_format(ours.config)
    write_model_folder(tmp_path / "out", ours.config, ours.state_dict(), {}, plain=plain, eos_id=40)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert type(theirs) is GPT2LMHeadModel
    assert theirs.config.eos_token_id == 40
    assert_same_logits(ours, theirs)
    back = read_model(tmp_path / "out")
    assert back.model_config == ours.config
    expected = {name: tensor for name, tensor in ours.state_dict().items() if name != "head.weight"}
    assert back.weights.keys() == expected.keys()
    assert all(torch.equal(back.weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_only_a_gpt2_is_exported_as_one(name: str) -> None:
    plain, obstacle = plain_format(zoo_config(name))
    if name == "gpt2":
        assert plain is not None
        assert plain.model_type == "gpt2"
    else:
        assert plain is None
        assert (
            obstacle == f"model.architecture={zoo_config(name).architecture} is neither a plain GPT-2 nor a Llama"
        )


@pytest.mark.parametrize("architecture", ["gpt2", "dual_track"])
def test_what_has_directions_is_exported_as_neither(architecture: str) -> None:
    shape = {"num_tracks": 1, "num_loops": 1} if architecture == "dual_track" else {}
    assert plain_format(zoo_config(architecture, **shape))[0] is not None
    assert plain_format(zoo_config(architecture, **shape, attention="plla")) == (
        None,
        "model.attention=plla, and a plain GPT-2 or Llama has softmax attention",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_function": "relu"}, "activation_function='relu', and the feed-forward layer here has GELU"),
        ({"scale_attn_by_inverse_layer_idx": True}, "attention here does not depend on the layer"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"add_cross_attention": True}, "no other sequence to attend to"),
        ({"tie_word_embeddings": False}, "the embedding of a GPT-2 is its head here"),
        ({"quantization_config": {"bits": 4}}, "quantised weights cannot be trained"),
        ({"n_head": 7}, "num_heads=7 does not divide hidden_size=30"),
        ({"n_layer": 4}, r"lacks transformer\.h\.3\.ln_1\.weight"),
        ({"n_layer": 2}, r"has the unknown transformer\.h\.2\."),
        ({"n_inner": None}, r"c_fc\.weight is 30x53, not 30x120"),
        ({"n_positions": 25}, r"transformer\.wpe\.weight is 24x30, not 25x30"),
        ({"n_embd": None}, "hidden_size"),
    ],
)
def test_what_cannot_be_represented_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    saved_gpt2(tmp_path / "gpt2")
    file = tmp_path / "gpt2" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=said) as caught:
        read_model(tmp_path / "gpt2")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    saved_gpt2(tmp_path / "gpt2")
    file = tmp_path / "gpt2" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "n_embd"}))
    with pytest.raises(CheckpointError, match="n_embd is missing"):
        read_model(tmp_path / "gpt2")
