from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from parallax.model.documents import document_ids
from parallax.model.dual_track import DualTrack
from parallax.model.head import IGNORE_INDEX, Objective
from parallax.model.registry import materialize
from parallax.parallel.data_parallel import DataParallel, sum_over_ranks
from parallax.parallel.engine import LossSums
from parallax.parallel.gradients import clip_to, global_norm, local_gradients
from parallax.parallel.mesh import Mesh
from parallax.parallel.placement import Placement
from parallax.parallel.transforms import apply_transforms
from parallax.runtime.device import Precision
from parallax.runtime.phase import phase


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
        placement: where the parameters are; needed with a mesh.
        reshard_after_forward: see `DataParallel`.
    """

    optimizer: Optimizer

    def __init__(
        self,
        model: DualTrack,
        *,
        device: torch.device,
        precision: Precision,
        build_optimizer: Callable[[DualTrack], Optimizer],
        grad_clip: float,
        activation_checkpointing: bool = False,
        compile_blocks: bool = False,
        separating_eos_id: int | None = None,
        mesh: Mesh | None = None,
        placement: Placement | None = None,
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
        self.placement = placement
        self._data_parallel = DataParallel(model, mesh, reshard_after_forward=reshard_after_forward)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision.scales_loss)

    def materialize(self, fill: Callable[[DualTrack], None]) -> None:
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

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which this run's forwards happen, validation included."""
        if self.precision.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision.autocast_dtype)

    def forward_backward(
        self, micro_batches: Sequence[Tensor], objective: Objective, noise_seeds: Sequence[int]
    ) -> LossSums:
        """See `Engine.forward_backward`.

        Args:
            micro_batches: windows (b, T + 1) of token ids, on the CPU; IGNORE_INDEX marks targets to skip.
            objective: what is minimised.
            noise_seeds: one per micro-batch; dropout draws from them and from nothing else.
        """
        num_tokens = self._count_tokens(micro_batches)
        # Data-parallel ranks average their gradients, and the sum of all is wanted.
        factor = (self._mesh.layout.dp if self._mesh else 1) / num_tokens
        wide = torch.float64 if self.device.type == "cpu" else torch.float32
        total = torch.zeros(4, dtype=wide, device=self.device)
        self.model.train()
        for number, (windows, noise_seed) in enumerate(zip(micro_batches, noise_seeds, strict=True), start=1):
            torch.manual_seed(noise_seed)
            windows = self._to_device(windows)
            # A place whose target is skipped may still be an input, and the embedding has no row for the mark.
            tokens = windows[:, :-1].clamp(min=0)
            documents = None if self._eos_id is None else document_ids(windows[:, :-1], self._eos_id)
            with self._data_parallel.reducing(number == len(micro_batches)):
                with phase("forward"), self.autocast():
                    output = self._data_parallel.forward(
                        tokens, windows[:, 1:], objective=objective, documents=documents
                    )
                with phase("backward"):
                    self._scaler.scale(output.objective_sum * factor).backward()
            sums = (output.objective_sum, output.nll_sum, output.z_sum, output.correct_count)
            total += torch.stack([value.detach().to(total.dtype) for value in sums])
        with phase("reduce"):
            self._data_parallel.finish()
            total = sum_over_ranks(total, self._mesh)
        return LossSums(total[0], total[1], total[2], total[3], num_tokens)

    def _count_tokens(self, micro_batches: Sequence[Tensor]) -> int:
        """The valid tokens of the global batch."""
        here = sum(int((windows[:, 1:] != IGNORE_INDEX).sum()) for windows in micro_batches)
        return int(sum_over_ranks(torch.tensor(here, device=self.device), self._mesh))

    def _to_device(self, windows: Tensor) -> Tensor:
        # Only a copy from pinned memory lets the host go on.
        source = windows.pin_memory() if self.device.type == "cuda" else windows
        return source.to(self.device, non_blocking=True)

    def clip_and_step(self, learning_rate: float) -> Tensor:
        """See `Engine.clip_and_step`. Under fp16 a step whose gradients overflow is skipped by the scaler."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.unscale_(self.optimizer)
        named = [(name, p) for name, p in self.model.named_parameters() if p.grad is not None]
        gradients = local_gradients(parameter for _, parameter in named)
        copies = [self._copies(name) for name, _ in named]
        with phase("clip"):
            norm = global_norm(gradients, copies, self._mesh.model if self._mesh else None)
            if self._grad_clip:
                clip_to(gradients, norm, self._grad_clip)
        with phase("update"):
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _copies(self, name: str) -> int:
        return self.placement.copies(name) if self.placement else 1

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
        if self.precision.scales_loss:
            self._scaler.load_state_dict(dict(state))
