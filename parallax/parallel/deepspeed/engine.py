from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from parallax.errors import ConfigError
from parallax.model.decoder import Decoder
from parallax.model.head import HeadOutput, Objective
from parallax.model.registry import materialize
from parallax.parallel.accumulate import MicroBatch, accumulate
from parallax.parallel.deepspeed.fragments import Fragments
from parallax.parallel.deepspeed.groups import TrackGroups
from parallax.parallel.deepspeed.library import check_precision, import_deepspeed
from parallax.parallel.deepspeed.operators import load_operator
from parallax.parallel.deepspeed.partition_state import PartitionState
from parallax.parallel.deepspeed.scale import read_scale, shrink_without_end, write_scale
from parallax.parallel.deepspeed.zero import Zero, build_settings
from parallax.parallel.engine import LossSums, Read, SavedTensors
from parallax.parallel.gradients import clip_to, global_norm
from parallax.parallel.ledger import LedgerRecorder, axis_names
from parallax.parallel.mesh import Mesh
from parallax.parallel.placement import Placement
from parallax.parallel.traffic import Key, Traffic
from parallax.parallel.transforms import apply_transforms
from parallax.runtime.device import Precision
from parallax.runtime.phase import phase
from parallax.runtime.piece import Piece


class DeepSpeedEngine:
    """ZeRO over the data-parallel ranks: weights and gradients in the run's precision, fp32 masters, AdamW.

    Sums, norms and updates are those of the native engine, up to what 16-bit weights round.

    Args:
        model: this rank's part, on the meta device.
        mesh: the ranks and their axes, also of one process.
        device: where it computes.
        precision: of weights, gradients and products.
        build_optimizer: called with the materialised model; the groups of its AdamW are kept.
        zero: what is divided, and what the host holds.
        micro_batch: samples per forward.
        accumulation: forwards per update.
        grad_clip: largest global gradient norm; 0 does not clip.
        activation_checkpointing: see `apply_transforms`.
        separating_eos_id: the token that parts documents; None: a row is one document.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        mesh: Mesh,
        device: torch.device,
        precision: Precision,
        build_optimizer: Callable[[Decoder], Optimizer],
        zero: Zero,
        micro_batch: int,
        accumulation: int,
        grad_clip: float,
        activation_checkpointing: bool = False,
        separating_eos_id: int | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.scales_loss = precision.scales_loss
        self.placement = Placement.of(model, mesh.layout.track)
        self._library = import_deepspeed(device)
        check_precision(self._library, precision.name)
        self.description: str | None = f"DeepSpeed {self._library.__version__}, {zero.describe()}"
        self._mesh = mesh
        self._build_optimizer = build_optimizer
        self._zero = zero
        self._grad_clip = grad_clip
        self._activation_checkpointing = activation_checkpointing
        self._eos_id = separating_eos_id
        self._settings = build_settings(
            zero,
            precision=precision.name,
            micro_batch=micro_batch,
            accumulation=accumulation,
            grad_clip=grad_clip,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        )
        self._runtime: Any = None

    def materialize(self, fill: Callable[[Decoder], None]) -> None:
        """See `Engine.materialize`. This rank's part of the model is filled on the CPU, whole and in fp32."""
        apply_transforms(self.model, activation_checkpointing=self._activation_checkpointing, compile_blocks=False)
        materialize(self.model, "cpu")
        fill(self.model)
        self._mark()
        named = dict(self.model.named_parameters())
        shapes = {name: parameter.shape for name, parameter in named.items()}
        # DeepSpeed gives 16-bit parameters new memory; these keep the fp32 values.
        filled = {name: parameter.detach() for name, parameter in named.items()}
        self._runtime = self._initialize(self._optimizer())
        self._fragments = Fragments(self._runtime, self._zero.stage, self._mesh.dp_rank)
        self._state = PartitionState(named, shapes, self._fragments, self.placement, self._mesh.dp, self.device)
        if self.precision.autocast_dtype is not None:
            self._state.put_masters(filled)
        if self.scales_loss:
            shrink_without_end(self._runtime.optimizer.loss_scaler)

    def _initialize(self, optimizer: Optimizer) -> Any:
        try:
            if self._zero.stage == 3:
                self._divide_weights()
            runtime, *_ = self._library.initialize(
                model=self.model, optimizer=optimizer, mpu=TrackGroups(self._mesh), config=self._settings
            )
        except ValueError as error:
            problem = " ".join(str(error).split())
            raise ConfigError(f"DeepSpeed refuses its settings: {problem}; see deepspeed.settings") from error
        return runtime

    def _divide_weights(self) -> None:
        """Each weight is divided before the next goes to the device, which so never holds all of them."""
        dtype = self.precision.autocast_dtype or torch.float32
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(dtype)
        self._library.zero.Init(
            module=self.model,
            dtype=dtype,
            data_parallel_group=self._mesh.dp,
            config_dict_or_path=self._settings,
            remote_device="cpu" if self._zero.offload_parameters else None,
            mpu=TrackGroups(self._mesh),
        )

    def _mark(self) -> None:
        """Says which parameters only this rank of the track axis holds; the others' norms are counted once."""
        for name, parameter in self.model.named_parameters():
            if self._mesh.layout.track > 1 and self.placement.copies(name) == 1:
                parameter.model_parallel = parameter.tensor_model_parallel = True  # type: ignore[attr-defined]

    def _optimizer(self) -> Optimizer:
        """AdamW where the optimizer states will be: DeepSpeed's own on the host."""
        optimizer = self._build_optimizer(self.model)
        if not self._zero.offload_optimizer:
            return optimizer
        load_operator(self._library.ops.op_builder.CPUAdamBuilder())
        keys = ("params", "lr", "betas", "eps", "weight_decay")
        groups = [{key: group[key] for key in keys} for group in optimizer.param_groups]
        host: Optimizer = self._library.ops.adam.DeepSpeedCPUAdam(groups, adamw_mode=True)
        return host

    @contextmanager
    def inference(self) -> Iterator[None]:
        """See `Engine.inference`. Weights have the run's precision, and come and go by hooks of the model."""
        yield

    def forward_backward(
        self, micro_batches: Sequence[Tensor], objective: Objective, noise: Sequence[Tensor]
    ) -> LossSums:
        """See `Engine.forward_backward`."""
        self.model.train()
        return accumulate(
            micro_batches,
            noise,
            lambda batch: self._run(batch, objective),
            device=self.device,
            mesh=self._mesh,
            eos_id=self._eos_id,
        )

    def _run(self, batch: MicroBatch, objective: Objective) -> HeadOutput:
        self._runtime.set_gradient_accumulation_boundary(batch.is_last)
        with phase("forward"):
            output = self._runtime(
                batch.tokens, batch.targets, objective=objective, documents=batch.documents, noise=batch.noise
            )
        with phase("backward"):
            # The factor normalises over the whole step: nothing may be divided by the micro-batches again.
            self._runtime.backward(output.objective_sum * batch.factor(), scale_wrt_gas=False)
        return output

    def clip_and_step(self, learning_rate: float) -> Tensor:
        """See `Engine.clip_and_step`. A step whose gradients overflow is skipped, and its norm is infinite."""
        for group in self._fragments.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self._clip_whole_gradients() if self._zero.stage == 0 else None
        with phase("update"):
            self._runtime.step()
        if norm is None:
            norm = torch.as_tensor(self._runtime.get_global_grad_norm(), device=self.device)
            # It says -1 where gradients were not finite.
            norm = torch.where(norm < 0, torch.inf, norm)
        return norm

    def _clip_whole_gradients(self) -> Tensor:
        named = [(name, p) for name, p in self.model.named_parameters() if p.grad is not None]
        gradients = [p.grad.detach() for _, p in named if p.grad is not None]
        with phase("clip"):
            norm = global_norm(gradients, [self.placement.copies(name) for name, _ in named], self._mesh.track)
            if self._grad_clip:
                clip_to(gradients, norm, self._grad_clip)
        return norm

    def parameter_norm(self) -> Tensor:
        """See `Engine.parameter_norm`."""
        held = self._state.local_weights()
        every = 1 if self._fragments.are_cut else self._mesh.layout.dp
        copies = [every * self.placement.copies(name) for name in held]
        return global_norm(list(held.values()), copies, dist.group.WORLD)

    def local_weights(self) -> list[Tensor]:
        """See `Engine.local_weights`."""
        return list(self._state.local_weights().values())

    def lasting(self) -> dict[str, list[Tensor]]:
        """See `Engine.lasting`. Masters are optimizer states."""
        return self._fragments.lasting(list(self.model.parameters()))

    def weight_pieces(self) -> dict[str, Piece]:
        """See `Engine.weight_pieces`; copies on the CPU."""
        return self._state.weight_pieces()

    def optimizer_pieces(self) -> tuple[dict[str, Piece], dict[str, Any]]:
        """See `Engine.optimizer_pieces`; copies on the CPU."""
        return self._state.optimizer_pieces()

    def load_optimizer_state(
        self, saved: SavedTensors, extra: Mapping[str, Any], read: Read, *, source: str | Path
    ) -> None:
        """See `Engine.load_optimizer_state`."""
        self._state.load_optimizer_state(saved, extra, read, source)

    def record_traffic(self) -> LedgerRecorder:
        """See `Engine.record_traffic`."""
        return LedgerRecorder(axis_names(self._mesh))

    def predict_traffic(self, micro_batches: Sequence[Tensor], objective: Objective) -> dict[Key, Traffic]:
        """Nothing: there is no formula of what DeepSpeed sends, and `train.ledger` is refused."""
        return {}

    def set_trainable(self, patterns: Sequence[str]) -> None:
        """See `Engine.set_trainable`; only before `materialize`, which divides what is trained.

        Raises:
            ConfigError: it was called later.
        """
        if self._runtime is not None:
            raise ConfigError(
                "DeepSpeed cannot freeze parameters of a run in progress; set parallel.engine=native"
            )
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in patterns))

    @property
    def loss_scale(self) -> float:
        """See `Engine.loss_scale`."""
        return float(self._runtime.optimizer.loss_scale) if self.scales_loss else 1.0

    def extra_state(self) -> Mapping[str, Any]:
        """The loss scale and its growth counter (empty without fp16), as the native engine has them."""
        return read_scale(self._runtime.optimizer.loss_scaler) if self.scales_loss else {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        if self.scales_loss and state:
            write_scale(self._runtime.optimizer.loss_scaler, state)
