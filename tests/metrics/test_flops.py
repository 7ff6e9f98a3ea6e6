import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from parallax.config.load import check_model_config
from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.models.gpt2 import Gpt2Config
from parallax.metrics.flops import forward_flops_per_token, parameter_counts, train_flops_per_token
from parallax.model.noise import row_keys
from parallax.model.registry import build_model, materialize

SHAPES = {
    "baseline": {"num_tracks": 1, "num_loops": 1},
    "two tracks, two passes": {},
    "three tracks, three passes": {"num_tracks": 3, "num_loops": 3, "num_layers": 1},
    "grouped heads": {"num_kv_heads": 1},
    "tied": {"tie_embeddings": True},
    "odd intermediate": {"intermediate_size": 171},
}
GPT2 = {
    "gpt2": {"architecture": "gpt2"},
    "drift-diffusion": {"architecture": "gpt2_drift_diffusion"},
    "one drift": {"architecture": "gpt2_drift_diffusion", "per_head": False},
    "no drift": {"architecture": "gpt2_drift_diffusion", "drift": False},
    "mean": {"architecture": "gpt2_parallel"},
    "concat": {"architecture": "gpt2_parallel", "merge": "concat"},
    "LR": {"architecture": "gpt2_rotating_head"},
    "LR norm": {"architecture": "gpt2_rotating_head", "use_norm": True},
    "GP": {"architecture": "gpt2_rotating_head", "frequencies": "GP"},
    "duo": {"architecture": "gpt2_duo_predict"},
    "duo strict": {"architecture": "gpt2_duo_predict_strict"},
    "plla": {"architecture": "gpt2", "attention": "plla"},
}
ALL = SHAPES | GPT2


def config_of(**changes):
    shape = {"num_layers": 2, "num_heads": 4, "hidden_size": 64, "vocab_size": 300, "max_seq_len": 64}
    return check_model_config(shape | changes, "test")


def build(config):
    return materialize(build_model(config, attention_backend="eager"), "cpu", seed=0)


@pytest.fixture(autouse=True)
def no_padding(monkeypatch):
    """Zeros that fill up a product's width are no operations of the model; without them torch counts the same."""
    monkeypatch.setattr("parallax.model.swiglu.aligned_width", lambda width: width)


def counted_flops(config, *, backward):
    model = build(config)
    tokens = torch.randint(config.vocab_size, (2, config.max_seq_len))
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        output = model.train(backward)(tokens, tokens, noise=row_keys(0, range(2)))
        if backward:
            output.objective_sum.backward()
    return counter.get_total_flops() / tokens.numel()


@pytest.mark.parametrize("changes", ALL.values(), ids=ALL)
def test_forward_flops_are_those_that_torch_counts(changes):
    config = config_of(**changes)
    counted = counted_flops(config, backward=False)
    assert forward_flops_per_token(config, config.max_seq_len) == pytest.approx(counted, rel=0.01)


TRAINED = {name: ALL[name] for name in ("baseline", "two tracks, two passes", "tied", *GPT2)}


@pytest.mark.parametrize("changes", TRAINED.values(), ids=TRAINED)
def test_training_flops_are_those_that_torch_counts(changes):
    config = config_of(**changes)
    counted = counted_flops(config, backward=True)
    # No query stands behind the last of the T tokens: 2T - 1 places are computed, and 2T counted.
    missing = 1 / config.max_seq_len if config.training_slots == 2 else 0
    assert train_flops_per_token(config, config.max_seq_len) == pytest.approx(counted, rel=0.01 + missing)


def test_attention_grows_with_the_sequence_and_nothing_else_does():
    config = config_of()
    blocks = 2 * 2 * 2
    grown = forward_flops_per_token(config, 128) - forward_flops_per_token(config, 64)
    assert grown == blocks * 4 * 64 * config.hidden_size


@pytest.mark.parametrize("changes", ALL.values(), ids=ALL)
def test_parameter_counts_are_those_of_the_model(changes):
    config = config_of(**changes)
    model = build(config)
    counts = parameter_counts(config)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert counts.total == sum(sizes.values())
    assert counts.per_track == sum(n for name, n in sizes.items() if name.startswith("tracks.0."))
    vocabulary = sum(n for name, n in sizes.items() if name.startswith(("embedding.", "head.")))
    assert counts.without_embeddings == counts.total - vocabulary


def test_the_reference_model_has_67_4_million_parameters():
    reference = DualTrackConfig(
        num_layers=6,
        num_heads=4,
        num_kv_heads=2,
        hidden_size=512,
        intermediate_size=1365,
        vocab_size=32_000,
        max_seq_len=512,
    )
    assert parameter_counts(reference).total == 67_377_664


def test_gpt2_medium_has_354_8_million_parameters():
    medium = Gpt2Config(num_layers=24, num_heads=16, hidden_size=1024, vocab_size=50_257, max_seq_len=1024)
    assert parameter_counts(medium).total == 354_823_168
