from torch import nn
from torch.optim import AdamW, Optimizer

from parallax.config.sections import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """Fused AdamW over the trainable parameters in two groups.

    Matrices are decayed. Norm weights, and the embedding (also where it is tied to the head), are not: decay
    would pull rare tokens' rows towards zero without a gradient to hold them.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            plain = parameter.dim() < 2 or id(parameter) in embeddings
            (others if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )
