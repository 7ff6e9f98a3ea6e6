"""The tensor parallelism that tracks are compared with is exact, and as sparing as torch's can be."""

from collections.abc import Callable

import torch
from parity import Case
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from worker_pool import WorkerPool

from evaluation.tensor_parallel import LlamaStacks, apply_tensor_parallel
from parallax.parallel.ledger import LedgerRecorder
from parallax.parallel.traffic import Key, Kind, Phase, Traffic

CONFIG = Case(num_loops=3).model().model_copy(update={"num_kv_heads": 2, "intermediate_size": 13})
WINDOWS = torch.randint(CONFIG.vocab_size, (2, 7), generator=torch.Generator().manual_seed(1))
Run = tuple[float, dict[str, Tensor], dict[Key, Traffic]]


def run(ranks: int) -> Run:
    """Loss, every whole gradient, and what was sent on the way."""
    torch.manual_seed(0)
    model = LlamaStacks(CONFIG).double()
    if ranks > 1:
        apply_tensor_parallel(model, init_device_mesh("cpu", (ranks,), mesh_dim_names=("tensor",)))
    with LedgerRecorder({}) as recorder:
        loss = model(WINDOWS)
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    whole = {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in gradients.items()}
    return float(loss.detach()), whole, recorder.traffic


def test_it_equals_one_process_with_four_all_reduces_an_executed_block(
    pool_of: Callable[[int], WorkerPool],
) -> None:
    loss, gradients, _ = run(1)
    executed = CONFIG.num_tracks * CONFIG.num_layers * CONFIG.num_loops
    states = WINDOWS[:, :-1].numel() * CONFIG.hidden_size * 8
    for found_loss, found, traffic in pool_of(2).run(run, 2):
        assert abs(found_loss - loss) < 1e-10
        torch.testing.assert_close(found, gradients, rtol=0, atol=1e-10)
        assert {key.phase: value for key, value in traffic.items()} == {
            phase: Traffic(2, 2 * executed, 2 * executed * states) for phase in (Phase.FORWARD, Phase.BACKWARD)
        }
        assert {key.kind for key in traffic} == {Kind.ALL_REDUCE}
