"""Model folders that transformers runs by the code in them: Parallax's own model is the oracle."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from parallax.checkpoint.model import load_model, read_model
from parallax.checkpoint.model_folder import write_model_folder
from parallax.checkpoint.portable.check import check_source
from parallax.checkpoint.portable.folder import MODELING_FILE, portable_config, portable_source
from parallax.config.models.dual_track import DualTrackConfig
from parallax.errors import CheckpointError
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.model.dual_track import DualTrack
from parallax.model.registry import build_model, materialize

VOCABULARY, WINDOW = 41, 32
TOKENS = torch.arange(40).reshape(2, 20) * 11 % VOCABULARY
CASES: list[dict[str, Any]] = [
    {},
    {"num_tracks": 3, "num_loops": 3, "num_kv_heads": 2},
    {"use_swap": False, "reinject": True, "tie_embeddings": True},
    {"use_swap": False, "num_kv_heads": 1, "intermediate_size": 53, "output_norm_eps": 0.5},
    {"num_tracks": 1, "num_loops": 3, "hidden_size": 36, "rope_theta": 321.0, "dropout": 0.3},
    {"attention": "plla", "num_kv_heads": 2},
]


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies the code that it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


@torch.no_grad()
def our_model(**changes: Any) -> DualTrack:
    sizes = {"num_layers": 2, "num_heads": 6, "hidden_size": 48, "vocab_size": VOCABULARY, "max_seq_len": WINDOW}
    model = materialize(build_model(DualTrackConfig(**(sizes | changes))), "cpu", seed=0)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.normal_(float(parameter.dim() == 1), 0.15, generator=generator)
    return model.eval()


def export(model: DualTrack, folder: Path) -> Path:
    write_model_folder(
        folder,
        model.config,
        model.state_dict(),
        {MODELING_FILE: portable_source(model.config, "a test")},
        eos_id=VOCABULARY - 1,
        config_keys=portable_config(model.config),
    )
    return folder


def pair(folder: Path, **changes: Any) -> tuple[DualTrack, Any]:
    """A model, and the same as transformers loads it."""
    ours = our_model(**changes)
    theirs = AutoModelForCausalLM.from_pretrained(
        export(ours, folder / "out"), trust_remote_code=True, dtype=torch.float32
    )
    return ours, theirs


@pytest.mark.parametrize("changes", CASES)
@torch.no_grad()
def test_logits_are_the_model_s(tmp_path: Path, changes: dict[str, Any]) -> None:
    ours, theirs = pair(tmp_path, **changes)
    torch.testing.assert_close(theirs(TOKENS).logits, ours(TOKENS), rtol=0, atol=1e-5)
    assert not type(theirs).__module__.startswith("parallax")


@pytest.mark.parametrize("changes", CASES[:2])
@torch.no_grad()
def test_a_cache_gives_the_logits_of_a_whole_reading(tmp_path: Path, changes: dict[str, Any]) -> None:
    ours, theirs = pair(tmp_path, **changes)
    expected, cache, found = ours(TOKENS), DynamicCache(), []
    for part in TOKENS.split([7, 1, 4, 1, 1, 6], dim=1):
        output = theirs(part, cache=cache, use_cache=True)
        assert output.cache is cache
        found.append(output.logits)
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=0, atol=1e-5)
    assert len(cache) == ours.config.num_tracks * ours.config.num_loops * ours.config.num_layers
    assert theirs(TOKENS, use_cache=False).cache is None


@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_rows_padded_on_either_side_have_the_logits_of_rows_alone(tmp_path: Path, cached: bool) -> None:
    ours, theirs = pair(tmp_path)
    rows = [TOKENS[0, :20], TOKENS[1, :13], TOKENS[1, 3:4]]
    for left in (True, False):
        ids, mask = torch.zeros(2, 3, 20, dtype=torch.long)
        places = [slice(20 - len(row), 20) if left else slice(0, len(row)) for row in rows]
        for number, (row, place) in enumerate(zip(rows, places, strict=True)):
            ids[number, place], mask[number, place] = row, 1
        if cached:
            cache = DynamicCache()
            parts = [
                theirs(ids[:, start:stop], attention_mask=mask[:, :stop], cache=cache).logits
                for start, stop in ((0, 9), (9, 10), (10, 20))
            ]
            logits = torch.cat(parts, 1)
        else:
            logits = theirs(ids, attention_mask=mask).logits
        assert logits.isfinite().all()
        for number, (row, place) in enumerate(zip(rows, places, strict=True)):
            torch.testing.assert_close(logits[number, place], ours(row[None])[0], rtol=0, atol=1e-5)


def test_every_query_sees_a_key_as_attention_s_backends_demand(tmp_path: Path) -> None:
    _, theirs = pair(tmp_path)
    view = sys.modules[type(theirs).__module__].CacheView(None, 1, 1)
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :7] = 0
    for given in (mask, torch.zeros(2, 1, 20, 20)):
        view.look(TOKENS, given, None)
        seen = view.begin(20)[1]
        assert seen.any(-1).all()
    assert view.begin(20)[0].tolist() == [list(range(20))]


@torch.no_grad()
def test_greedy_text_is_parallax_s_own_for_rows_of_unequal_length(tmp_path: Path) -> None:
    ours, theirs = pair(tmp_path, num_kv_heads=2)
    prompts = [[3, 5, 8, 13], [21], [34, 14, 7, 9, 2, 6, 1]]
    written = generate(
        ours, prompts, max_new_tokens=16, options=SamplingOptions(temperature=0), seed=0, eos_id=None
    )
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    wishes = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    for more in ({}, {"use_cache": False}, {"cache_implementation": "static", "disable_compile": True}):
        found = theirs.generate(ids, attention_mask=mask, **wishes, **more)
        assert found[:, longest:].tolist() == [row.tokens for row in written], more


@torch.no_grad()
def test_beams_reorder_the_cache_and_samples_follow_the_seed(tmp_path: Path) -> None:
    _, theirs = pair(tmp_path)
    wishes = {"max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0}
    beams = [
        theirs.generate(TOKENS[:, :6], num_beams=4, do_sample=False, use_cache=used, **wishes)
        for used in (True, False)
    ]
    assert torch.equal(*beams)
    greedy = theirs.generate(TOKENS[:, :6], do_sample=False, **wishes)
    assert not torch.equal(beams[0], greedy)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(theirs.generate(TOKENS[:, :6], do_sample=True, **wishes))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@torch.no_grad()
def test_only_the_logits_that_are_wanted_are_computed(tmp_path: Path) -> None:
    ours, theirs = pair(tmp_path)
    expected = ours(TOKENS)
    for kept, places in ((1, slice(-1, None)), (3, slice(-3, None)), (torch.tensor([2, 5]), [2, 5])):
        found = theirs(TOKENS, logits_to_keep=kept).logits
        torch.testing.assert_close(found, expected[:, places], rtol=0, atol=1e-5)
    assert torch.equal(theirs(TOKENS, return_dict=False)[0], theirs(TOKENS).logits)


def test_it_learns_in_transformers_and_comes_back(tmp_path: Path) -> None:
    ours, theirs = pair(tmp_path, tie_embeddings=True, dropout=0.5)
    theirs.train()
    loss = theirs(TOKENS, labels=TOKENS).loss
    expected = F.cross_entropy(ours(TOKENS)[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    theirs.eval().save_pretrained(tmp_path / "tuned")
    back = load_model(tmp_path / "tuned").model
    with torch.no_grad():
        torch.testing.assert_close(back(TOKENS), theirs(TOKENS).logits, rtol=0, atol=1e-5)
        assert (back(TOKENS) - ours(TOKENS)).abs().max() > 1e-3
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", trust_remote_code=True)
    assert torch.equal(again(TOKENS).logits, theirs(TOKENS).logits)


def test_parallax_reads_the_folder_bit_for_bit(tmp_path: Path) -> None:
    ours = our_model()
    saved = read_model(export(ours, tmp_path / "out"))
    assert saved.model_config == ours.config
    assert all(torch.equal(saved.weights[name], tensor) for name, tensor in ours.state_dict().items())


def test_a_model_that_begins_anew_is_drawn(tmp_path: Path) -> None:
    export(our_model(), tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out", trust_remote_code=True)
    fresh = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    assert 0.015 < float(fresh.model.head.weight.detach().std()) < 0.025
    assert torch.equal(fresh.model.norm.weight, torch.ones(48))


@torch.no_grad()
def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    _, theirs = pair(tmp_path)
    with pytest.raises(ValueError, match=r"attention_mask is \(2, 19\); expected \(2, 20\)"):
        theirs(TOKENS, attention_mask=torch.zeros(2, 19))
    with pytest.raises(ValueError, match="reads input_ids"):
        theirs(inputs_embeds=torch.zeros(1, 2, 48))
    with pytest.raises(ValueError, match="neither hidden states nor attentions"):
        theirs(TOKENS, output_hidden_states=True)


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    ours = our_model()
    text = portable_source(ours.config, "a test")
    difference = check_source(text, ours.config, ours.state_dict(), tmp_path)
    assert 0 <= difference < 1e-5
    wrong = text.replace("states = [state + piece.x for state in states]", "pass")
    assert wrong != text
    with pytest.raises(CheckpointError, match=r"logits that differ by .* nothing was written"):
        check_source(wrong, ours.config, ours.state_dict(), tmp_path)


def test_config_json_tells_transformers_what_it_asks_for(tmp_path: Path) -> None:
    config = json.loads((export(our_model(), tmp_path / "out") / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_parallax.ParallaxForCausalLM"
    assert (config["num_hidden_layers"], config["max_position_embeddings"]) == (8, WINDOW)
