"""Every preset says how many parameters it has, and is right."""

import re
from pathlib import Path

import pytest

from parallax.config.load import load_config
from parallax.config.models.dual_track import DualTrackConfig, default_intermediate_size
from parallax.model.registry import build_model

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("zoo/*.yaml")])


def count_parameters(config: DualTrackConfig) -> int:
    return sum(parameter.numel() for parameter in build_model(config).parameters())


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_stated_number_of_parameters_is_the_models(path: Path) -> None:
    stated = re.search(r"^# Parameters: ([\d,]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert stated, f"{path.name} has no line '# Parameters: N'"
    assert int(stated[1].replace(",", "")) == count_parameters(load_config(path).model)


def test_the_reference_model_has_67_million_parameters() -> None:
    reference = DualTrackConfig(
        num_layers=6,
        num_heads=4,
        num_kv_heads=2,
        hidden_size=512,
        intermediate_size=1365,
        vocab_size=32_000,
        max_seq_len=512,
    )
    attention = 512 * (4 + 2 + 2) * 128 + 512 * 512
    block = attention + 3 * 512 * 1365 + 2 * 512
    assert count_parameters(reference) == 2 * 32_000 * 512 + 2 * 6 * block + 512
    assert f"{count_parameters(reference) / 1e6:.1f}" == "67.4"


def test_the_reference_preset_is_the_reference_model() -> None:
    config = load_config(Path(__file__).parents[2] / "configs" / "reference.yaml").model
    assert (config.num_tracks, config.num_layers, config.num_loops) == (2, 6, 2)
    assert (config.num_heads, config.num_kv_heads, config.hidden_size) == (4, 2, 512)
    assert (config.intermediate_size, config.vocab_size, config.max_seq_len) == (1365, 32_000, 512)
    assert (config.use_swap, config.reinjects, config.tie_embeddings) == (True, True, False)
    assert config.norm_eps == 1e-5


@pytest.mark.parametrize(
    ("hidden_size", "expected"), [(24, 64), (25, 128), (128, 384), (512, 1408), (768, 2048), (1, 64)]
)
def test_the_inner_width_is_eight_thirds_rounded_up_to_a_multiple_of_64(hidden_size: int, expected: int) -> None:
    assert default_intermediate_size(hidden_size) == expected


def test_neither_loops_nor_swap_cost_parameters() -> None:
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_size": 16, "vocab_size": 10, "max_seq_len": 8}
    counts = {
        count_parameters(DualTrackConfig(**sizes, num_loops=loops, use_swap=swap))
        for loops in (1, 3)
        for swap in (True, False)
    }
    assert len(counts) == 1
