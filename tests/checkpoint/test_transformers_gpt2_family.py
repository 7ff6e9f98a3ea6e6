"""GPT-2 and its variants as transformers runs them by a folder's code: Parallax's own models are the oracle."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import fill_generously
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from zoo_models import PLLA_VARIANTS, VARIANTS, zoo_config

from parallax.checkpoint.model_folder import write_model_folder
from parallax.checkpoint.portable.check import check_source
from parallax.checkpoint.portable.folder import MODELING_FILE, portable_config, portable_source
from parallax.errors import CheckpointError
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.metrics.flops import parameter_counts
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model, materialize

WINDOW = 24
TOKENS = torch.arange(20).reshape(2, 10) * 7 % 11


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies the code that it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


def our_model(name: str, **changes: Any) -> Decoder:
    model = materialize(build_model(zoo_config(name, max_seq_len=WINDOW, **changes)), "cpu", seed=0)
    fill_generously(model, 0)
    return model.eval()


SOURCES: dict[tuple[type, str], str] = {}
"""By the class of the configuration and its attention, which is all that a file depends on."""


def export(model: Decoder, folder: Path) -> Path:
    kind = type(model.config), model.config.attention
    if kind not in SOURCES:
        SOURCES[kind] = portable_source(model.config, "a test")
    texts = {MODELING_FILE: SOURCES[kind]}
    keys = portable_config(model.config)
    write_model_folder(folder, model.config, model.state_dict(), texts, eos_id=None, config_keys=keys)
    return folder


@pytest.mark.parametrize("name", [*VARIANTS, *PLLA_VARIANTS])
@torch.no_grad()
def test_logits_and_cached_greedy_text_are_the_model_s(tmp_path: Path, name: str) -> None:
    ours = our_model(name)
    theirs = AutoModelForCausalLM.from_pretrained(
        export(ours, tmp_path / "out"), trust_remote_code=True, dtype=torch.float32
    )
    expected, cache = ours(TOKENS), DynamicCache()
    torch.testing.assert_close(theirs(TOKENS).logits, expected, rtol=0, atol=1e-5)
    found = [theirs(part, cache=cache, use_cache=True).logits for part in TOKENS.split([4, 1, 5], dim=1)]
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=0, atol=1e-5)
    assert len(cache) == ours.config.num_tracks * ours.config.layers_per_track

    prompts = [[3, 5, 8, 1], [2], [9, 4, 7, 0, 2, 6]]
    options = SamplingOptions(temperature=0)
    written = generate(ours, prompts, max_new_tokens=12, options=options, seed=0, eos_id=None)
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    wishes = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    for more in ({}, {"use_cache": False}):
        text = theirs.generate(ids, attention_mask=mask, **wishes, **more)
        assert text[:, longest:].tolist() == [row.tokens for row in written], more


FOREIGN = {
    "gpt2": ["SwiGLU", "RMSNorm", "rotary_angles", "DriftDiffusion", "HeadFrequencies", "shift(", "duo_mask"],
    "LR": ["SwiGLU", "DriftDiffusion", "duo_mask"],
    "drift": ["SwiGLU", "HeadFrequencies", "gaussian", "row_keys"],
    "concat": ["HeadFrequencies", "DriftDiffusion"],
    "duo": ["duo_mask", "gap_logits", "SwiGLU"],
}
"""Variant -> what its file has no use for."""


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_is_whole_and_has_no_part_of_another_architecture(tmp_path: Path, name: str) -> None:
    text = portable_source(zoo_config(name), "a test")
    assert not [part for part in FOREIGN[name] if part in text]
    sections = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config")
    ]
    assert len(sections) == 2, "one section of ours, and what transformers reads"
    file = tmp_path / "modeling.py"
    file.write_text(text, encoding="utf-8")
    ruff = [str(Path(sys.executable).parent / "ruff"), "check", "--isolated", "--select=F", str(file)]
    done = subprocess.run(ruff, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_a_method_that_a_variant_has_otherwise_is_not_taken_for_the_base_s(tmp_path: Path) -> None:
    ours = our_model("duo")
    text = portable_source(ours.config, "a test")
    assert check_source(text, ours.config, ours.state_dict(), tmp_path) < 1e-5
    wrong = text.replace("return 2 * places", "return places")
    assert wrong != text
    with pytest.raises(CheckpointError, match="nothing was written"):
        check_source(wrong, ours.config, ours.state_dict(), tmp_path)


def test_heads_that_turn_keep_learned_positions_where_asked(tmp_path: Path) -> None:
    ours = our_model("GP", learned_positions=True, frequency_spread=-2.3)
    assert parameter_counts(ours.config).total == sum(parameter.numel() for parameter in ours.parameters())
    assert check_source(portable_source(ours.config, "a test"), ours.config, ours.state_dict(), tmp_path) < 1e-5
    without = our_model("GP", frequency_spread=-2.3)
    without.load_state_dict(ours.state_dict(), strict=False)
    with torch.no_grad():
        assert (ours(TOKENS) - without(TOKENS)).abs().max() > 1e-3


def test_a_model_that_is_noisy_whenever_it_is_read_is_refused_in_one_line() -> None:
    config = zoo_config("diffusion", diffusion_at_eval=True)
    with pytest.raises(CheckpointError, match=r"model\.diffusion_at_eval=true: .*; export without") as caught:
        portable_source(config, "a test")
    assert "\n" not in str(caught.value)
    assert portable_source(zoo_config("drift", diffusion_at_eval=True), "a test"), "no noise to leave out"


@pytest.mark.parametrize(
    ("name", "parameter", "std"),
    [("LR", "tracks.0.blocks.0.attention.rotation.frequencies", 1.0), ("duo", "query.weight", 0.02)],
)
def test_what_a_variant_adds_is_drawn_where_a_model_begins_anew(
    tmp_path: Path, name: str, parameter: str, std: float
) -> None:
    folder = export(our_model(name, hidden_size=512), tmp_path / "out")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    fresh = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    assert 0.8 * std < float(fresh.model.get_parameter(parameter).detach().std()) < 1.2 * std
