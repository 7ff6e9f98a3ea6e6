"""What a contender does in a step: ours, and torch's tensor parallelism, behind one protocol."""

from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from evaluation.dual_track import as_dual_track
from evaluation.tensor_parallel import LlamaStacks, apply_tensor_parallel
from parallax.config.run import RunConfig
from parallax.data.loader import rank_rows
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.parallel.build import SharedForm, build_native_engine
from parallax.parallel.gradients import clip_to, local_parts
from parallax.parallel.ledger import LedgerRecorder
from parallax.parallel.mesh import Mesh
from parallax.parallel.traffic import sent_bytes
from parallax.runtime.device import Precision
from parallax.train.optimizer import build_optimizer

_CPU = torch.device("cpu")


class Trainer(Protocol):
    """One process of a contender; every rank is given the whole batch."""

    def gradients(self, windows: Tensor) -> None:
        """Forward and backward over (B, T + 1) windows, of which a rank may read its rows only."""
        ...

    def update(self) -> None:
        """Norm, clipping, and the optimizer's step."""
        ...

    def sent_bytes(self, windows: Tensor) -> int:
        """What this rank sends in a step."""
        ...


class EngineTrainer:
    """Parallax's own engine, in one process or over a mesh."""

    def __init__(
        self, config: RunConfig, precision: Precision, mesh: Mesh | None, shared: SharedForm, overlap: bool
    ) -> None:
        self._lr, self._mesh = config.optim.lr, mesh
        self._objective = Objective(chunk_tokens=config.loss.chunk_tokens)
        self._engine = build_native_engine(
            config.model,
            mesh=mesh,
            device=_CPU,
            attention_backend=config.runtime.attention_backend,
            shared=shared,
            overlap=overlap,
            precision=precision,
            build_optimizer=partial(build_optimizer, config=config.optim),
            grad_clip=config.optim.grad_clip,
        )
        put = self._engine.placement.put
        self._engine.materialize(lambda model: model.initialize(config.seed, put))

    def gradients(self, windows: Tensor) -> None:
        """See `Trainer.gradients`."""
        own = self._own(len(windows))
        self._engine.forward_backward([windows[own]], self._objective, [row_keys(0, range(own.start, own.stop))])

    def update(self) -> None:
        """See `Trainer.update`."""
        self._engine.clip_and_step(self._lr)

    def sent_bytes(self, windows: Tensor) -> int:
        """By the ledger's formula."""
        own = windows[self._own(len(windows))]
        return sum(sent_bytes(self._engine.predict_traffic([own], self._objective)).values())

    def _own(self, rows: int) -> slice:
        return rank_rows(rows, *((self._mesh.dp_rank, self._mesh.layout.dp) if self._mesh else (0, 1)))


class TensorParallelTrainer:
    """The same stacks as Llama's blocks, divided by `parallelize_module` over all ranks."""

    def __init__(self, config: RunConfig, precision: Precision) -> None:
        torch.manual_seed(config.seed)
        self._model = LlamaStacks(as_dual_track(config.model))
        self._dtype = precision.autocast_dtype
        self._clip = config.optim.grad_clip
        apply_tensor_parallel(self._model, init_device_mesh("cpu", (dist.get_world_size(),)))
        # The optimizer sees plain tensors that share the distributed ones' memory, as one fused step needs.
        self._pairs = [(p, nn.Parameter(part)) for p in self._model.parameters() for part in local_parts([p])]
        self._optimizer = torch.optim.AdamW([local for _, local in self._pairs], lr=config.optim.lr, fused=True)

    def gradients(self, windows: Tensor) -> None:
        """See `Trainer.gradients`."""
        with torch.autocast("cpu", dtype=self._dtype, enabled=self._dtype is not None):
            loss = self._model(windows)
        loss.backward()

    def update(self) -> None:
        """See `Trainer.update`; the shared parameters' part of the norm is that of every rank."""
        for whole, local in self._pairs:
            [local.grad] = local_parts([whole.grad] if whole.grad is not None else [])
        gradients = [local.grad for _, local in self._pairs if local.grad is not None]
        squares = torch.nn.utils.get_total_norm(gradients).square()
        dist.all_reduce(squares)
        if self._clip:
            clip_to(gradients, squares.sqrt(), self._clip)
        self._optimizer.step()
        for whole, local in self._pairs:
            whole.grad = local.grad = None

    def sent_bytes(self, windows: Tensor) -> int:
        """As a step's ledger counts them."""
        with LedgerRecorder({}) as recorder:
            self.gradients(windows)
        self._model.zero_grad()
        return sum(sent_bytes(recorder.traffic).values())
