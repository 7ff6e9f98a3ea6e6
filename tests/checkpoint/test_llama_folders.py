"""Folders of transformers' Llama, read and written: transformers itself is the oracle."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from parallax.checkpoint.foreign.plain import plain_format
from parallax.checkpoint.model import load_model, read_model
from parallax.checkpoint.model_folder import write_model_folder
from parallax.config.models.dual_track import DualTrackConfig
from parallax.errors import CheckpointError
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

SIZES: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 36,
    "intermediate_size": 53,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 0.03,
    "rope_parameters": {"rope_type": "default", "rope_theta": 321.0},
}
"""Odd where a size may be odd; an epsilon and a base that show."""
TOKENS = torch.arange(40).reshape(2, 20) * 11 % 41


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.normal_(float(parameter.dim() == 1), 0.15, generator=generator)


def saved_llama(folder: Path, max_shard_size: str = "1GB", **changes: Any) -> LlamaForCausalLM:
    model = LlamaForCausalLM(LlamaConfig(**(SIZES | changes))).eval()
    fill(model)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return model


def our_model(**changes: Any) -> DualTrack:
    sizes = {
        "num_tracks": 1,
        "num_loops": 1,
        "num_layers": 3,
        "num_heads": 6,
        "num_kv_heads": 2,
        "hidden_size": 36,
        "intermediate_size": 53,
        "vocab_size": 41,
        "max_seq_len": 32,
        "norm_eps": 0.03,
        "rope_theta": 321.0,
    }
    model = materialize(build_model(DualTrackConfig(**(sizes | changes))), "cpu", seed=0)
    fill(model)
    return model.eval()


def export(model: DualTrack, folder: Path, **options: Any) -> None:
    plain, _ = plain_format(model.config)
    write_model_folder(folder, model.config, model.state_dict(), {}, plain=plain, **options)


@torch.no_grad()
def assert_same_logits(ours: DualTrack, theirs: LlamaForCausalLM) -> None:
    torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 3, 6])
def test_a_llama_folder_gives_the_logits_of_transformers(tmp_path: Path, num_kv_heads: int, tied: bool) -> None:
    theirs = saved_llama(tmp_path / "llama", num_key_value_heads=num_kv_heads, tie_word_embeddings=tied)
    ours = load_model(tmp_path / "llama").model
    assert (ours.head.weight is ours.embedding.weight) == tied
    assert_same_logits(ours, theirs)


def test_shards_with_an_index_are_read(tmp_path: Path) -> None:
    theirs = saved_llama(tmp_path / "llama", max_shard_size="15KB")
    assert len(list((tmp_path / "llama").glob("*.safetensors"))) > 3
    assert not (tmp_path / "llama" / "model.safetensors").exists()
    assert_same_logits(load_model(tmp_path / "llama").model, theirs)


@pytest.mark.parametrize(
    ("num_kv_heads", "tied", "width"), [(6, False, 36), (2, True, 36), (1, False, 60), (3, True, 12)]
)
def test_a_model_of_one_track_and_one_pass_is_exported_as_a_llama(
    tmp_path: Path, num_kv_heads: int, tied: bool, width: int
) -> None:
    ours = our_model(num_kv_heads=num_kv_heads, tie_embeddings=tied, hidden_size=width)
    export(ours, tmp_path / "out", eos_id=40)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert type(theirs) is LlamaForCausalLM
    assert theirs.config.eos_token_id == 40
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("key", ["rope_theta", "rope_scaling"])
def test_the_rotary_base_is_found_where_earlier_transformers_put_it(tmp_path: Path, key: str) -> None:
    theirs = saved_llama(tmp_path / "llama")
    file = tmp_path / "llama" / "config.json"
    config = json.loads(file.read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 321.0, "rope_scaling": None if key == "rope_theta" else {"type": "default"}}
    file.write_text(json.dumps(config))
    assert_same_logits(load_model(tmp_path / "llama").model, theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_what_was_exported_comes_back_bit_for_bit(tmp_path: Path, tied: bool) -> None:
    ours = our_model(tie_embeddings=tied)
    export(ours, tmp_path / "out")
    back = read_model(tmp_path / "out")
    expected = {name: tensor for name, tensor in ours.state_dict().items() if not (tied and name == "head.weight")}
    assert back.weights.keys() == expected.keys()
    assert all(torch.equal(back.weights[name], expected[name]) for name in expected)
    assert back.model_config == ours.config.model_copy(update={"use_swap": False})


@pytest.mark.parametrize("changes", [{"num_loops": 2}, {"num_tracks": 2}, {"output_norm_eps": 1e-6}])
def test_what_a_llama_cannot_say_is_not_exported_as_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    export(our_model(**changes), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "parallax"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_bias": True}, "attention_bias=True, and attention here has no bias"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu', and the feed-forward layer here is a SwiGLU"),
        ({"head_dim": 8}, "head_dim=8, and heads here are hidden_size / num_attention_heads = 36/6 wide"),
        ({"model_type": "qwen3"}, "model_type='qwen3'; expected parallax, llama, gpt2"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "of the type 'llama3'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None}, "of the type 'linear'"),
        ({"quantization_config": {"bits": 4}}, "quantised weights cannot be trained"),
        ({"num_key_value_heads": 4}, "num_kv_heads=4 does not divide num_heads=6"),
        ({"num_hidden_layers": 4}, r"lacks model\.layers\.3\.input_layernorm\.weight"),
        ({"num_hidden_layers": 2}, r"has the unknown model\.layers\.2\."),
        ({"vocab_size": 40}, r"model\.embed_tokens\.weight is 41x36, not 40x36"),
        ({"tie_word_embeddings": True}, r"lm_head\.weight differs from model\.embed_tokens\.weight"),
    ],
)
def test_what_cannot_be_represented_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    saved_llama(tmp_path / "llama")
    file = tmp_path / "llama" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=said) as caught:
        read_model(tmp_path / "llama")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    saved_llama(tmp_path / "llama")
    file = tmp_path / "llama" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "hidden_size"}))
    with pytest.raises(CheckpointError, match="hidden_size is missing"):
        read_model(tmp_path / "llama")


def test_shards_that_do_not_fit_their_index_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    saved_llama(folder, max_shard_size="15KB")
    index = folder / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    name, shard = next(iter(whole["weight_map"].items()))
    places = whole["weight_map"]
    for changed, said in (
        ({**places, name: "../model.safetensors"}, r"names the file '\.\./model\.safetensors'"),
        ({**places, name: "absent.safetensors"}, r"absent\.safetensors is missing"),
        ({**places, "extra.weight": shard}, r"lacks extra\.weight"),
        ("nothing", "is no index of shards"),
    ):
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(CheckpointError, match=said):
            read_model(folder)
    index.unlink()
    with pytest.raises(CheckpointError, match="has neither model"):
        read_model(folder)
