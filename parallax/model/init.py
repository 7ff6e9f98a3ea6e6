import torch
from torch import Tensor, nn

from parallax.runtime.seeds import derived_generator

_STD = 0.02
_RESIDUAL_PROJECTIONS = ("attention.output.weight", "mlp.down.weight")


@torch.no_grad()
def initialize_parameters(model: nn.Module, *, seed: int, executed_depth: int) -> None:
    """Draws every parameter from a generator of its own, seeded by (seed, the parameter's name).

    Any layout of the model over ranks therefore draws the same weights, and adding a parameter changes no
    other. Draws are fp32 on the CPU, whatever the parameter's type and device.

    | parameter                                  | value                            |
    |--------------------------------------------|----------------------------------|
    | RMSNorm weights                            | 1                                |
    | attention.output, mlp.down (write into the | N(0, 0.02 / sqrt(2 * depth))     |
    |   residual stream)                         |                                  |
    | everything else: embedding, qkv, gate_up,  | N(0, 0.02)                       |
    |   head                                     |                                  |

    Args:
        model: materialised model; tied parameters are drawn once.
        seed: the run's seed.
        executed_depth: depth = num_loops * num_layers, the blocks one track runs in a forward. Each adds
            two branches to the residual stream, whose variance the factor keeps from growing with depth.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(_draw(name, parameter, seed, executed_depth))


def _draw(name: str, parameter: Tensor, seed: int, executed_depth: int) -> Tensor:
    if parameter.dim() == 1:
        return torch.ones(parameter.shape)
    std = _STD
    if name.endswith(_RESIDUAL_PROJECTIONS):
        std /= (2 * executed_depth) ** 0.5
    return torch.empty(parameter.shape).normal_(0.0, std, generator=derived_generator(seed, name))
