from collections.abc import Callable

import torch
from torch.optim import Optimizer

from parallax.config.batch import accumulation_on_ranks
from parallax.config.run import RunConfig
from parallax.model.decoder import Decoder
from parallax.parallel.build import build_part
from parallax.parallel.deepspeed.engine import DeepSpeedEngine
from parallax.parallel.deepspeed.groups import mesh_of_one
from parallax.parallel.deepspeed.zero import resolve_zero
from parallax.parallel.mesh import Mesh
from parallax.runtime.device import Precision


def build_deepspeed_engine(
    config: RunConfig,
    *,
    mesh: Mesh | None,
    device: torch.device,
    precision: Precision,
    build_optimizer: Callable[[Decoder], Optimizer],
    separating_eos_id: int | None,
) -> DeepSpeedEngine:
    """An engine over this rank's part of the model, as a run asks for it.

    Args:
        config: of the run.
        mesh: None: one process.
        device: where this rank computes.
        precision: see `DeepSpeedEngine`.
        build_optimizer: see `DeepSpeedEngine`.
        separating_eos_id: see `DeepSpeedEngine`.

    Raises:
        BackendError: DeepSpeed, or the attention backend, cannot run here.
        ConfigError: what is asked for would be silently wrong under DeepSpeed.
    """
    model = build_part(
        config.model,
        mesh=mesh,
        device=device,
        attention_backend=config.runtime.attention_backend,
        shared=config.parallel.shared,
    )
    arranged = mesh or mesh_of_one(device)
    zero = resolve_zero(config)
    accumulation = accumulation_on_ranks(config.train.global_batch, config.train.micro_batch, arranged.layout.dp)
    return DeepSpeedEngine(
        model,
        mesh=arranged,
        device=device,
        precision=precision,
        build_optimizer=build_optimizer,
        zero=zero,
        micro_batch=config.train.global_batch // (arranged.layout.dp * accumulation),
        accumulation=accumulation,
        grad_clip=config.optim.grad_clip,
        activation_checkpointing=config.train.activation_checkpointing,
        separating_eos_id=separating_eos_id,
    )
