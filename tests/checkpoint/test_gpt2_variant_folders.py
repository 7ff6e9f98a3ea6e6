"""GPT-2's published variants in their own naming: their equations, written out beside, are the oracle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from published_gpt2 import Named, Published, block_shapes, turned_pairs
from safetensors.torch import save_file
from torch import Tensor

from parallax.checkpoint.model import load_model, read_model
from parallax.errors import CheckpointError
from parallax.model.gpt2_duo_predict import Gpt2DuoPredict, duo_mask

HEADS, WIDTH, PAIRS, VOCABULARY, WINDOW, LAYERS = 3, 12, 2, 13, 8, 4
RAW: dict[str, Any] = {
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": WIDTH,
    "n_inner": 20,
    "n_positions": WINDOW,
    "vocab_size": VOCABULARY,
    "layer_norm_epsilon": 0.03,
}
TOKENS = torch.arange(16).reshape(2, 8) * 5 % VOCABULARY
EACH = (HEADS, WIDTH // HEADS)


def drawn(added: Mapping[str, tuple[int, ...]] | None = None, model: Mapping[str, Any] | None = None) -> Named:
    """Tensors of a GPT-2, with what a variant adds to every block's attention and to the model."""
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCABULARY, WIDTH),
        "transformer.wpe.weight": (WINDOW, WIDTH),
        "transformer.ln_f.weight": (WIDTH,),
        "transformer.ln_f.bias": (WIDTH,),
        **{f"transformer.{name}": shape for name, shape in (model or {}).items()},
    }
    for layer in range(LAYERS):
        shapes |= {f"transformer.h.{layer}.{name}": shape for name, shape in block_shapes(WIDTH, 20).items()}
        shapes |= {f"transformer.h.{layer}.attn.{name}": shape for name, shape in (added or {}).items()}
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


def saved(folder: Path, model_type: str, tensors: Named, **raw: Any) -> dict[str, Any]:
    folder.mkdir()
    described = RAW | {"model_type": model_type} | raw
    (folder / "config.json").write_text(json.dumps(described))
    save_file(dict(tensors), folder / "model.safetensors")
    return described


@torch.no_grad()
def assert_same(folder: Path, model: Published, architecture: str) -> None:
    ours = load_model(folder).model
    assert ours.config.architecture == architecture
    torch.testing.assert_close(ours(TOKENS), model.logits(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["mean", "concat"])
def test_the_blocks_of_a_pair_are_neighbours_and_share_the_bottleneck(tmp_path: Path, method: str) -> None:
    extra = {"bottleneck.weight": (WIDTH, 2 * WIDTH), "bottleneck.bias": (WIDTH,)} if method == "concat" else {}
    tensors = drawn(model=extra)
    raw = saved(tmp_path / "in", "parallel-gpt2", tensors, bottleneck_method=method)

    def merge(left: Tensor, right: Tensor) -> Tensor:
        if method == "mean":
            return (left + right) / 2
        matrix, bias = tensors["transformer.bottleneck.weight"], tensors["transformer.bottleneck.bias"]
        return F.linear(torch.cat((left, right), -1), matrix, bias)

    assert_same(tmp_path / "in", Published(raw, tensors, merge=merge), "gpt2_parallel")


@pytest.mark.parametrize("has_baseline", [True, False])
def test_a_drift_of_every_element_becomes_a_part_of_the_projection(tmp_path: Path, has_baseline: bool) -> None:
    tensors = drawn({"drift_param": EACH, "diffusion_param": EACH, **({"baseline": EACH} if has_baseline else {})})
    raw = saved(tmp_path / "in", "dd-gpt2", tensors, apply_drift=True, apply_diffusion=True)

    def drift(attended: Tensor, own: Named) -> Tensor:
        baseline = own["attn.baseline"] if has_baseline else 0
        return attended + own["attn.drift_param"].sigmoid() * (attended - baseline)

    assert_same(tmp_path / "in", Published(raw, tensors, perturb=drift), "gpt2")


def test_a_drift_of_every_head_is_our_own(tmp_path: Path) -> None:
    tensors = drawn({"drift_param": (HEADS, 1, 1)})
    raw = saved(tmp_path / "in", "dd-gpt2", tensors, apply_drift=True, apply_diffusion=True, diffusion_std=0.3)
    model = Published(raw, tensors, perturb=lambda a, own: a + own["attn.drift_param"].flatten()[:, None] * a)
    assert_same(tmp_path / "in", model, "gpt2_drift_diffusion")
    assert read_model(tmp_path / "in").model_config.deviations == [0.3] * HEADS  # type: ignore[attr-defined]


@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("kind", ["lr", "gp"])
def test_heads_that_turn_neighbours_turn_halves_here(tmp_path: Path, kind: str, has_norm: bool) -> None:
    norm = {f"rope.layer_norm.{part}": (PAIRS,) for part in ("weight", "bias")} if has_norm else {}
    tensors = drawn({**({"rope.frequencies": (HEADS, PAIRS)} if kind == "lr" else {}), **norm})
    eps = 1e-5 if has_norm else RAW["layer_norm_epsilon"]
    raw = saved(tmp_path / "in", "rotating-head-gpt2", tensors, rotatinghead=kind, layer_norm_epsilon=eps)

    def turn(x: Tensor, own: Named) -> Tensor:
        fixed = 10.0 ** -(torch.arange(HEADS) / (HEADS - 1))[:, None] * 10_000.0 ** -(torch.arange(PAIRS) / PAIRS)
        frequencies = own["attn.rope.frequencies"] if kind == "lr" else fixed
        if has_norm:
            parts = own["attn.rope.layer_norm.weight"], own["attn.rope.layer_norm.bias"]
            frequencies = F.layer_norm(frequencies, (PAIRS,), *parts)
        return turned_pairs(x, frequencies)

    assert_same(tmp_path / "in", Published(raw, tensors, turn=turn), "gpt2_rotating_head")


def test_a_norm_over_frequencies_with_another_epsilon_is_refused(tmp_path: Path) -> None:
    norm = {f"rope.layer_norm.{part}": (PAIRS,) for part in ("weight", "bias")}
    saved(tmp_path / "in", "rotating-head-gpt2", drawn(norm), rotatinghead="gp")
    with pytest.raises(
        CheckpointError, match=r"layer_norm_epsilon=0\.03, and the norm over frequencies has 1e-05"
    ):
        read_model(tmp_path / "in")


@torch.no_grad()
def test_a_query_begins_as_the_mask_and_shares_its_token_s_position(tmp_path: Path) -> None:
    tensors = drawn()
    raw = saved(tmp_path / "in", "duo-predict-gpt2", tensors)
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor added_tokens\.json has <\|MASK\|>"):
        read_model(tmp_path / "in")
    (tmp_path / "in" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read as JSON"):
        read_model(tmp_path / "in")
    (tmp_path / "in" / "tokenizer.json").unlink()
    mask_id = VOCABULARY - 1
    (tmp_path / "in" / "added_tokens.json").write_text(json.dumps({"<|MASK|>": mask_id}))
    model = Published(raw, tensors)
    assert_same(tmp_path / "in", model, "gpt2_duo_predict")
    ours = load_model(tmp_path / "in").model
    assert isinstance(ours, Gpt2DuoPredict)
    slots = torch.full((2, 2 * WINDOW - 1), mask_id)
    slots[:, ::2] = TOKENS
    positions = torch.arange(2 * WINDOW - 1) // 2
    seen = duo_mask(WINDOW, torch.device("cpu"), strict=False)[0, 0]
    expected = model.logits(slots, positions, seen)
    torch.testing.assert_close(ours.gap_logits(TOKENS), expected[:, 1::2], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(TOKENS), expected[:, ::2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "added", "raw", "said"),
    [
        ("parallel-gpt2", {}, {"bottleneck_method": "add"}, "bottleneck_method='add'; only mean and concat"),
        ("parallel-gpt2", {}, {"bottleneck_method": "concat"}, r"lacks transformer\.bottleneck\.weight, which a"),
        ("parallel-gpt2", {}, {"n_layer": 3}, "num_layers=3 is odd"),
        ("rotating-head-gpt2", {}, {"rotatinghead": "xy"}, "rotatinghead='xy'; only lr and gp"),
        ("rotating-head-gpt2", {"rope.frequencies": (HEADS, 5)}, {}, r"frequencies is \(3, 5\), not \(3, 2\)"),
        ("dd-gpt2", {"drift_param": (HEADS, 1)}, {}, r"drift_param is \(3, 1\), not \(3, 4\)"),
        ("dd-gpt2", {"rope.frequencies": (1,)}, {}, r"has the unknown transformer\.h\.0\.attn\.rope"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, model_type: str, added: dict[str, Any], raw: dict[str, Any], said: str
) -> None:
    saved(tmp_path / "in", model_type, drawn(added), **raw)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_model(tmp_path / "in")
    assert "\n" not in str(caught.value)
