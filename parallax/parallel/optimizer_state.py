from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from parallax.errors import CheckpointError

NamedParameters = Iterable[tuple[str, nn.Parameter]]
"""As `module.named_parameters()` gives them."""


def optimizer_tensors(
    optimizer: Optimizer, named_parameters: NamedParameters
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state by parameter name, so that any order of parameters or groups can load it.

    Hyperparameters are left out: they come from the configuration, and the learning rate from its schedule.
    Nothing is copied.

    Args:
        optimizer: of which every parameter is among `named_parameters`.
        named_parameters: of the model.

    Returns:
        Tensors under STATE/PARAMETER, such as `exp_avg/tracks.0.blocks.0.mlp.down.weight`; and JSON values:
        `optimizer` (the class) and `values` (state that is no tensor, under the same kind of name).
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in named_parameters}
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            place = tensors if isinstance(value, Tensor) else values
            place[f"{key}/{names[parameter]}"] = value
    return tensors, {"optimizer": type(optimizer).__name__, "values": values}


def restore_optimizer(
    optimizer: Optimizer,
    named_parameters: NamedParameters,
    tensors: Mapping[str, Tensor],
    extra: Mapping[str, Any],
    *,
    source: str | Path,
) -> None:
    """The inverse of `optimizer_tensors`; values are copied, to each parameter's device.

    A parameter without saved state starts afresh, as it would have in the run that saved.

    Args:
        optimizer: over the same model; its own state is replaced, its hyperparameters stay.
        named_parameters: of the model.
        tensors: as saved.
        extra: the JSON values as saved.
        source: where they come from, for messages.

    Raises:
        CheckpointError: the state is of another kind of optimizer or of a parameter that this one does not
            train, or a tensor is neither 0-dim nor shaped like its parameter.
    """
    if extra["optimizer"] != type(optimizer).__name__:
        raise CheckpointError(
            f"{source} holds the state of {extra['optimizer']}, and this run uses {type(optimizer).__name__}; "
            f"start a new run with train.init_from to keep only the weights"
        )
    blank = optimizer.state_dict()
    numbers = [number for group in blank["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = {parameter: name for name, parameter in named_parameters}
    known = {names[p]: (number, p) for number, p in zip(numbers, parameters, strict=True)}
    state: dict[int, dict[str, Any]] = {}
    for full_name, value in (*tensors.items(), *extra["values"].items()):
        key, _, name = full_name.partition("/")
        if name not in known:
            raise CheckpointError(
                f"{source} holds the optimizer state {full_name}, and this run trains no such parameter; "
                f"continue with the model it was saved from"
            )
        number, parameter = known[name]
        fitted = _fit(value, parameter, f"{source}: {full_name}") if isinstance(value, Tensor) else value
        state.setdefault(number, {})[key] = fitted
    optimizer.load_state_dict(blank | {"state": state})


def _fit(value: Tensor, parameter: nn.Parameter, where: str) -> Tensor:
    """A copy that training may change, where the parameter is."""
    if value.dim() == 0:
        # Counters stay on their device: `load_state_dict` knows which optimizers want them on a GPU.
        return value.clone()
    if value.shape != parameter.shape:
        raise CheckpointError(
            f"{where} has the shape {tuple(value.shape)}, and the parameter here {tuple(parameter.shape)}; "
            f"continue with the model it was saved from"
        )
    return value.to(parameter.device, copy=True)
