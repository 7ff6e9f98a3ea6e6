"""What is done to the blocks from outside changes how they are computed, not what."""

import shutil

import pytest
import torch
from small_engines import forward_backward, gradients, random_windows, small_engine, weights
from torch import Tensor
from torch._dynamo.utils import counters

from parallax.model.block import Block
from parallax.parallel.native import NativeEngine


def count_runs(engine: NativeEngine) -> list[str]:
    """A list that grows with every run of a block's attention."""
    runs: list[str] = []
    for name, module in engine.model.named_modules():
        if isinstance(module, Block):
            module.attention.register_forward_hook(lambda *_, name=name: runs.append(name))
    return runs


def step(engine: NativeEngine, windows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    objective = forward_backward(engine, *windows.split(2)).objective
    return objective, gradients(engine)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recomputed_blocks_give_the_same_loss_and_gradients_bit_for_bit(dropout: float) -> None:
    """With dropout only if the masks repeat."""
    windows = random_windows(4)
    kept, recomputed = small_engine(dropout=dropout), small_engine(dropout=dropout, activation_checkpointing=True)
    torch.testing.assert_close(step(recomputed, windows), step(kept, windows), rtol=0, atol=0)


def test_every_block_is_run_a_second_time_in_the_backward_once_per_pass() -> None:
    kept, recomputed = small_engine(num_loops=3), small_engine(num_loops=3, activation_checkpointing=True)
    runs, runs_again = count_runs(kept), count_runs(recomputed)
    step(kept, random_windows(2))
    step(recomputed, random_windows(2))
    assert len(runs) == 2 * 2 * 3
    assert sorted(runs_again) == sorted(2 * runs)


def test_nothing_is_recomputed_where_no_gradient_is_wanted() -> None:
    engine = small_engine(activation_checkpointing=True)
    runs, windows = count_runs(engine), random_windows(2)
    with torch.no_grad():
        logits = engine.model.eval()(windows)
    assert len(runs) == 2 * 2 * 2
    torch.testing.assert_close(logits, small_engine().model.eval()(windows).detach(), rtol=0, atol=0)


def test_parameter_names_stay_those_of_the_plain_model() -> None:
    changed = small_engine(activation_checkpointing=True)
    assert list(weights(changed)) == list(weights(small_engine()))
    assert list(changed.model.state_dict()) == list(small_engine().model.state_dict())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.parametrize("activation_checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_compiled_blocks_give_the_same_loss_and_gradients(activation_checkpointing: bool, dropout: float) -> None:
    torch.compiler.reset()
    counters.clear()
    windows = random_windows(4)
    compiled = small_engine(
        compile_blocks=True, activation_checkpointing=activation_checkpointing, dropout=dropout
    )
    loss, found = step(compiled, windows)
    expected_loss, expected = step(small_engine(dropout=dropout), windows)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert list(compiled.model.state_dict()) == list(small_engine().model.state_dict())
    assert counters["stats"]["unique_graphs"] == 1, "blocks that differ in weights and noise share their code"

    compiled.model.eval()
    cache = compiled.model.build_cache(batch_size=2)
    with torch.no_grad():
        for place in range(3):
            compiled.model(windows[:2, place : place + 1], cache=cache)
    assert counters["stats"]["unique_graphs"] == 1, "decoding, whose shapes change, is not compiled"
