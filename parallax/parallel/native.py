from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from parallax.model.decoder import Decoder
from parallax.model.head import HeadOutput, Objective
from parallax.model.registry import materialize
from parallax.parallel.accumulate import MicroBatch, accumulate
from parallax.parallel.data_parallel import DataParallel
from parallax.parallel.engine import LossSums, Read, SavedTensors
from parallax.parallel.gradients import clip_to, global_norm, local_parts
from parallax.parallel.ledger import LedgerRecorder, axis_names
from parallax.parallel.mesh import Mesh
from parallax.parallel.placement import Placement
from parallax.parallel.prediction import StepShape, predict_step
from parallax.parallel.state_pieces import optimizer_pieces, restore_optimizer_pieces
from parallax.parallel.traffic import Key, Traffic
from parallax.parallel.transforms import apply_transforms
from parallax.runtime.device import Precision
from parallax.runtime.phase import phase
from parallax.runtime.piece import Piece


class NativeEngine:
    """Plain PyTorch, alone or with other ranks: fp32 master weights, autocast, loss scaling for fp16, fused AdamW.

    Several ranks spread tracks and samples over a mesh; each reads its own rows of the global batch, and every
    sum, norm and update is that of one process with all of them.

    Args:
        model: on the meta device.
        device: where it will live.
        precision: what the matrix products run in.
        build_optimizer: called with the materialised model.
        grad_clip: largest global gradient norm; 0 does not clip.
        activation_checkpointing: see `apply_transforms`.
        compile_blocks: see `apply_transforms`.
        separating_eos_id: the token that parts documents, which then do not see each other; None: they do.
        mesh: the ranks and their axes; None: one process.
        reshard_after_forward: see `DataParallel`.
    """

    description: str | None = None
    optimizer: Optimizer

    def __init__(
        self,
        model: Decoder,
        *,
        device: torch.device,
        precision: Precision,
        build_optimizer: Callable[[Decoder], Optimizer],
        grad_clip: float,
        activation_checkpointing: bool = False,
        compile_blocks: bool = False,
        separating_eos_id: int | None = None,
        mesh: Mesh | None = None,
        reshard_after_forward: bool = False,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.scales_loss = precision.scales_loss
        self._build_optimizer = build_optimizer
        self._grad_clip = grad_clip
        self._activation_checkpointing = activation_checkpointing
        self._compile_blocks = compile_blocks
        self._eos_id = separating_eos_id
        self._mesh = mesh
        self.placement = Placement.of(model, mesh.layout.track if mesh else 1)
        self._data_parallel = DataParallel(model, mesh, reshard_after_forward=reshard_after_forward)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision.scales_loss)

    def materialize(self, fill: Callable[[Decoder], None]) -> None:
        """See `Engine.materialize`."""
        apply_transforms(
            self.model,
            activation_checkpointing=self._activation_checkpointing,
            compile_blocks=self._compile_blocks,
        )
        self._data_parallel.shard()
        materialize(self.model, self.device)
        fill(self.model)
        self._data_parallel.replicate()
        self.optimizer = self._build_optimizer(self.model)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """See `Engine.inference`."""
        with self._autocast():
            yield
        self._data_parallel.finish()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision.autocast_dtype)

    def forward_backward(
        self, micro_batches: Sequence[Tensor], objective: Objective, noise: Sequence[Tensor]
    ) -> LossSums:
        """See `Engine.forward_backward`."""
        self.model.train()
        sums = accumulate(
            micro_batches,
            noise,
            lambda batch: self._run(batch, objective),
            device=self.device,
            mesh=self._mesh,
            eos_id=self._eos_id,
        )
        self._data_parallel.finish()
        return sums

    def _run(self, batch: MicroBatch, objective: Objective) -> HeadOutput:
        with self._data_parallel.reducing(batch.is_last):
            with phase("forward"), self._autocast():
                output = self._data_parallel.forward(
                    batch.tokens, batch.targets, objective=objective, documents=batch.documents, noise=batch.noise
                )
            with phase("backward"):
                self._scaler.scale(output.objective_sum * batch.factor()).backward()
        return output

    def clip_and_step(self, learning_rate: float) -> Tensor:
        """See `Engine.clip_and_step`. Under fp16 a step whose gradients overflow is skipped by the scaler."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.unscale_(self.optimizer)
        self._agree_on_overflow()
        named = [(name, p) for name, p in self.model.named_parameters() if p.grad is not None]
        gradients = local_parts(p.grad for _, p in named if p.grad is not None)
        copies = [self.placement.copies(name) for name, _ in named]
        with phase("clip"):
            norm = global_norm(gradients, copies, self._mesh.model if self._mesh else None)
            if self._grad_clip:
                clip_to(gradients, norm, self._grad_clip)
        with phase("update"):
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _agree_on_overflow(self) -> None:
        """Ranks that hold different gradients skip a step together or not at all."""
        if self._mesh is None or not self.scales_loss:
            return
        for found in self._scaler._found_inf_per_device(self.optimizer).values():
            dist.all_reduce(found, op=dist.ReduceOp.MAX)

    def parameter_norm(self) -> Tensor:
        """See `Engine.parameter_norm`."""
        named = list(self.model.named_parameters())
        group = self._mesh.model if self._mesh else None
        return global_norm(
            local_parts(p for _, p in named), [self.placement.copies(name) for name, _ in named], group
        )

    def local_weights(self) -> list[Tensor]:
        """See `Engine.local_weights`."""
        return local_parts(self.model.parameters())

    def lasting(self) -> dict[str, list[Tensor]]:
        """See `Engine.lasting`."""
        parameters = list(self.model.parameters())
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return {
            "weights": local_parts(parameters),
            "gradients": local_parts(p.grad for p in parameters if p.grad is not None),
            "optimizer states": [value for value in states if isinstance(value, Tensor)],
        }

    def weight_pieces(self) -> dict[str, Piece]:
        """See `Engine.weight_pieces`; they share the parameters' memory."""
        return dict(self.placement.pieces(self.model))

    def optimizer_pieces(self) -> tuple[dict[str, Piece], dict[str, Any]]:
        """See `Engine.optimizer_pieces`; they share the optimizer's memory."""
        return optimizer_pieces(self.optimizer, self.model, self.placement)

    def load_optimizer_state(
        self, saved: SavedTensors, extra: Mapping[str, Any], read: Read, *, source: str | Path
    ) -> None:
        """See `Engine.load_optimizer_state`."""
        restore_optimizer_pieces(self.optimizer, self.model, self.placement, saved, extra, read, source=source)

    def record_traffic(self) -> LedgerRecorder:
        """See `Engine.record_traffic`."""
        return LedgerRecorder(axis_names(self._mesh))

    def predict_traffic(self, micro_batches: Sequence[Tensor], objective: Objective) -> dict[Key, Traffic]:
        """See `Engine.predict_traffic`."""
        if self._mesh is None:
            return {}
        step = StepShape(
            micro_batches=[(len(windows), windows.shape[1] - 1) for windows in micro_batches],
            chunk_tokens=objective.chunk_tokens,
            reshards_after_forward=self._data_parallel.reshards_after_forward,
            counter_bytes=8 if self.device.type == "cpu" else 4,
        )
        return predict_step(self.model, self._mesh.layout, step)

    def set_trainable(self, patterns: Sequence[str]) -> None:
        """See `Engine.set_trainable`.

        Called before `materialize`, the optimizer never knows the frozen parameters. Called later, they get no
        gradient, and so neither an update nor decay.
        """
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in patterns))

    @property
    def loss_scale(self) -> float:
        """See `Engine.loss_scale`."""
        return self._scaler.get_scale()

    def extra_state(self) -> Mapping[str, Any]:
        """The loss scale and its growth counter (empty without fp16)."""
        return dict(self._scaler.state_dict())

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        # Empty where the run had another precision before.
        if self.precision.scales_loss and state:
            self._scaler.load_state_dict(dict(state))
