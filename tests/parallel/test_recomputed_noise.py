"""What a block draws, its recomputation draws again: gradients are the same bit for bit."""

import pytest
import torch
from torch import Tensor

from parallax.config.load import check_model_config
from parallax.model.noise import row_keys
from parallax.model.registry import ARCHITECTURES, build_model, materialize
from parallax.parallel.transforms import apply_transforms

SIZES = {"num_layers": 2, "num_heads": 2, "hidden_size": 16, "vocab_size": 13, "max_seq_len": 6}


def gradients(architecture: str, *, checkpointing: bool, step: int = 0) -> dict[str, Tensor]:
    config = check_model_config({**SIZES, "architecture": architecture, "dropout": 0.1}, "test")
    model = build_model(config)
    apply_transforms(model, activation_checkpointing=checkpointing, compile_blocks=False)
    materialize(model, "cpu", seed=0).train()
    tokens = torch.randint(13, (3, 6), generator=torch.Generator().manual_seed(1))
    model(tokens, tokens.roll(-1, 1), noise=row_keys(5, range(3 * step, 3 * step + 3))).objective_sum.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_of_a_recomputed_block_are_those_of_a_kept_one(architecture: str) -> None:
    kept, recomputed = (gradients(architecture, checkpointing=value) for value in (False, True))
    torch.testing.assert_close(recomputed, kept, rtol=0, atol=0)
    other = gradients(architecture, checkpointing=False, step=1)
    assert any(not torch.equal(other[name], kept[name]) for name in kept)
