"""The tensor parallelism that tracks are compared with is exact, and as sparing as torch's can be."""

from collections.abc import Callable

import pytest
import torch
from parity import Case
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from worker_pool import WorkerPool
from zoo_models import zoo_config

from evaluation.gpt2_tensor_parallel import Gpt2Pairs, apply_tensor_parallel_to_pairs
from evaluation.tensor_parallel import LlamaStacks, apply_tensor_parallel
from parallax.config.models.base import ModelConfig
from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.models.gpt2 import ParallelConfig
from parallax.model.registry import build_model, materialize
from parallax.parallel.ledger import LedgerRecorder
from parallax.parallel.traffic import Key, Kind, Phase, Traffic

LLAMA = DualTrackConfig(**Case(num_loops=3).model().model_dump() | {"num_kv_heads": 2, "intermediate_size": 13})
MEAN, CONCAT = (zoo_config(name, vocab_size=LLAMA.vocab_size) for name in ("mean", "concat"))
WINDOWS = torch.randint(LLAMA.vocab_size, (2, 7), generator=torch.Generator().manual_seed(1))
Run = tuple[float, dict[str, Tensor], dict[Key, Traffic]]


def run(config: ModelConfig, ranks: int) -> Run:
    """Loss, every whole gradient, and what was sent on the way."""
    torch.manual_seed(0)
    model = _build(config).double()
    if ranks > 1:
        mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("tensor",))
        if isinstance(model, Gpt2Pairs):
            apply_tensor_parallel_to_pairs(model, mesh)
        else:
            apply_tensor_parallel(model, mesh)
    with LedgerRecorder({}) as recorder:
        loss = model(WINDOWS)
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    whole = {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in gradients.items()}
    return float(loss.detach()), whole, recorder.traffic


def _build(config: ModelConfig) -> LlamaStacks | Gpt2Pairs:
    if isinstance(config, ParallelConfig):
        return Gpt2Pairs(config)
    assert isinstance(config, DualTrackConfig)
    return LlamaStacks(config)


@pytest.mark.parametrize("config", [LLAMA, MEAN, CONCAT], ids=["llama", "mean", "concat"])
def test_it_equals_one_process_with_four_all_reduces_an_executed_block(
    config: ModelConfig, pool_of: Callable[[int], WorkerPool]
) -> None:
    loss, gradients, _ = run(config, 1)
    executed = config.executed_blocks
    states = WINDOWS[:, :-1].numel() * config.hidden_size * 8
    for found_loss, found, traffic in pool_of(2).run(run, config, 2):
        assert abs(found_loss - loss) < 1e-10
        torch.testing.assert_close(found, gradients, rtol=0, atol=1e-10)
        assert {key.phase: value for key, value in traffic.items()} == {
            phase: Traffic(2, 2 * executed, 2 * executed * states) for phase in (Phase.FORWARD, Phase.BACKWARD)
        }
        assert {key.kind for key in traffic} == {Kind.ALL_REDUCE}


@pytest.mark.parametrize("config", [MEAN, CONCAT], ids=["mean", "concat"])
def test_pairs_split_by_tensors_are_the_pairs_of_our_tracks(config: ParallelConfig) -> None:
    ours = materialize(build_model(config).double(), "cpu", seed=0)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pairs = Gpt2Pairs(config).double()
    pairs.load_state_dict(_renamed(ours.state_dict(), config))
    summed = ours(WINDOWS[:, :-1], WINDOWS[:, 1:]).objective_sum
    torch.testing.assert_close(pairs(WINDOWS), summed / WINDOWS[:, 1:].numel())


def _renamed(weights: dict[str, Tensor], config: ParallelConfig) -> dict[str, Tensor]:
    """Track k's block p is block 2p + k; q, k, v one by one; the parts of a merge side by side."""
    found = {name: weights[name] for name in weights if name.split(".")[0] in ("embedding", "positions", "norm")}
    for name, tensor in weights.items():
        _, track, kind, pair, *rest = [*name.split("."), "", "", ""]
        if kind == "blocks":
            place, part = f"blocks.{2 * int(pair) + int(track)}", ".".join(text for text in rest if text)
            if "qkv" in part:
                thirds = zip("qkv", tensor.chunk(3), strict=True)
                found |= {f"{place}.{part.replace('qkv', third)}": rows for third, rows in thirds}
            else:
                found[f"{place}.{part.replace('attention.output', 'attention.o')}"] = tensor
    for pair in range(config.layers_per_track if config.merge == "concat" else 0):
        parts = [weights[f"tracks.{k}.merges.{pair}.weight"] for k in range(2)]
        found |= {
            f"merges.{pair}.weight": torch.cat(parts, dim=1),
            f"merges.{pair}.bias": weights[f"biases.{pair}"],
        }
    return found
