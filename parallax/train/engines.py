import torch

from parallax.config.run import RunConfig
from parallax.parallel.build import build_native_engine
from parallax.parallel.deepspeed.build import build_deepspeed_engine
from parallax.parallel.engine import Engine
from parallax.parallel.mesh import Mesh
from parallax.runtime.device import Precision
from parallax.train.optimizer import build_optimizer


def build_engine(
    config: RunConfig,
    device: torch.device,
    precision: Precision,
    *,
    mesh: Mesh | None,
    eos_id: int,
) -> Engine:
    """The engine that a run asks for, over this rank's part of the model, which has no memory yet.

    Args:
        config: of the run, `parallel.engine` settled.
        device: where this rank computes.
        precision: what it computes in.
        mesh: the ranks; None: one process.
        eos_id: the token that parts documents.

    Raises:
        BackendError: a backend, or DeepSpeed, cannot run here.
        ConfigError: what is asked for would be silently wrong under DeepSpeed.
    """
    separating_eos_id = eos_id if config.data.document_mask else None
    if config.parallel.engine == "deepspeed":
        return build_deepspeed_engine(
            config,
            mesh=mesh,
            device=device,
            precision=precision,
            build_optimizer=lambda filled: build_optimizer(filled, config.optim),
            separating_eos_id=separating_eos_id,
        )
    return build_native_engine(
        config.model,
        mesh=mesh,
        device=device,
        attention_backend=config.runtime.attention_backend,
        shared=config.parallel.shared,
        reshard_after_forward=config.parallel.reshard_after_forward,
        overlap=config.parallel.overlap,
        precision=precision,
        build_optimizer=lambda filled: build_optimizer(filled, config.optim),
        grad_clip=config.optim.grad_clip,
        activation_checkpointing=config.train.activation_checkpointing,
        compile_blocks=config.train.compile == "blocks",
        separating_eos_id=separating_eos_id,
    )
