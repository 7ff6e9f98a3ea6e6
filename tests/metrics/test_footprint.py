import pytest
import torch

from parallax.config.load import check_model_config
from parallax.metrics.footprint import memory_estimate
from parallax.model.noise import row_keys
from parallax.model.registry import build_model, materialize

MICRO_BATCH = 4
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


GPT2 = [
    ("gpt2", {}),
    ("gpt2_drift_diffusion", {}),
    ("gpt2_drift_diffusion", {"drift": False}),
    ("gpt2_parallel", {"num_layers": 4}),
    ("gpt2_parallel", {"num_layers": 4, "merge": "concat"}),
    ("gpt2_rotating_head", {}),
    ("gpt2_rotating_head", {"frequencies": "GP"}),
    ("gpt2_duo_predict", {}),
    ("gpt2_duo_predict_strict", {}),
    ("gpt2", {"attention": "plla"}),
    ("gpt2_drift_diffusion", {"attention": "plla"}),
    ("gpt2_rotating_head", {"attention": "plla"}),
    ("gpt2_rotating_head", {"attention": "plla", "frequencies": "GP"}),
    ("gpt2_rotating_head", {"attention": "plla", "frequencies": "GP", "use_norm": True}),
    ("dual_track", {"attention": "plla", "num_kv_heads": 2}),
]


def config_of(**changes):
    shape = {"num_layers": 2, "num_heads": 4, "hidden_size": 64, "vocab_size": 300, "max_seq_len": 128}
    return check_model_config(shape | changes, "test")


def saved_bytes(config, dtype):
    """Bytes of the storages that a forward keeps for its backward, parameters left out."""
    backend = "sdpa" if config.attention == "softmax" else "chunked"
    model = materialize(build_model(config, attention_backend=backend), "cpu", seed=0)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            # The tensor is held too, so that no later one gets its address.
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    tokens = torch.randint(config.vocab_size, (MICRO_BATCH, config.max_seq_len))
    autocast = torch.autocast("cpu", dtype, enabled=dtype is not None)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept), autocast:
        model(tokens, tokens, noise=row_keys(0, range(MICRO_BATCH)))
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize(
    ("precision", "changes"),
    [
        ("fp32", {}),
        ("fp32", {"num_tracks": 1, "num_loops": 1}),
        ("bf16", {"num_kv_heads": 1, "num_loops": 3}),
        ("fp16", {"num_tracks": 1, "num_layers": 4}),
        ("fp32", {"intermediate_size": 171}),
        ("bf16", {"intermediate_size": 171}),
        *((precision, {"architecture": name, **more}) for name, more in GPT2 for precision in ("fp32", "bf16")),
    ],
)
def test_activations_are_what_the_forward_keeps(precision, changes):
    config = config_of(**changes)
    estimate = memory_estimate(config, MICRO_BATCH, precision, activation_checkpointing=False)
    head_gradient = 4 * config.vocab_size * config.hidden_size
    weight_copies = estimate.weights_bytes - estimate.gradients_bytes
    expected = estimate.activations_bytes + head_gradient + weight_copies
    assert expected == pytest.approx(saved_bytes(config, DTYPES[precision]), rel=0.02)


def test_checkpointing_keeps_one_block_and_the_inputs_of_all():
    config = config_of(num_layers=8)
    whole = memory_estimate(config, MICRO_BATCH, "fp32", activation_checkpointing=False)
    checkpointed = memory_estimate(config, MICRO_BATCH, "fp32", activation_checkpointing=True)
    executed, tokens = 2 * 8 * 2, MICRO_BATCH * config.max_seq_len
    inputs = executed * tokens * 4 * config.hidden_size
    ends = 8 * tokens * config.hidden_size
    shared = tokens * 4 * config.hidden_size  # both tracks read one embedding
    one_block = (whole.activations_bytes + shared - ends) // executed
    assert checkpointed.activations_bytes == inputs - shared + one_block + ends
    assert (checkpointed.weights_bytes, checkpointed.logits_bytes) == (whole.weights_bytes, whole.logits_bytes)


def test_states_are_sixteen_bytes_a_parameter_in_fp32():
    config = config_of()
    estimate = memory_estimate(config, MICRO_BATCH, "fp32", activation_checkpointing=False)
    parameters = sum(parameter.numel() for parameter in build_model(config).parameters())
    states = estimate.weights_bytes + estimate.gradients_bytes + estimate.optimizer_bytes
    assert states == 16 * parameters
    assert estimate.total_bytes == states + estimate.activations_bytes + estimate.logits_bytes


def test_a_larger_chunk_of_logits_costs_in_proportion_up_to_the_batch():
    config = config_of()
    one, two, endless = (
        memory_estimate(config, MICRO_BATCH, "fp32", False, chunk_tokens=n).logits_bytes for n in (128, 256, 10**9)
    )
    assert two - one == 128 * config.vocab_size * 12
    assert endless - one == (MICRO_BATCH * config.max_seq_len - 128) * config.vocab_size * 12
