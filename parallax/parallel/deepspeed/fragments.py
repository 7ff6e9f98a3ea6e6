from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Fragment(NamedTuple):
    """The elements of a parameter whose fp32 master and moments this rank keeps; they may be none."""

    flat: Tensor
    """The tensor that the optimizer knows, which holds fragments of several parameters one after the other."""
    offset: int
    """Where this fragment begins there."""
    start: int
    """Where it begins in the flattened parameter."""
    size: int

    def of(self, values: Tensor) -> Tensor:
        """This fragment of `flat`, or of a moment that is shaped like it; shares memory."""
        return values.detach().view(-1)[self.offset : self.offset + self.size]


class Fragments:
    """Where a DeepSpeed engine keeps the masters of its parameters: what its four stages do differently.

    | stage | the optimizer's tensors                                       | a parameter's elements        |
    |-------|---------------------------------------------------------------|-------------------------------|
    | 0     | the parameters themselves                                     | all                           |
    | 1, 2  | one a group of parameters, cut over the ranks as one long row | those that the cut gives here |
    | 3     | some a group, each parameter cut over the ranks by itself     | one part, the last one padded |

    Args:
        runtime: what `deepspeed.initialize` returned.
        stage: of ZeRO.
        dp_rank: which part of a parameter stage 3 keeps here.
    """

    def __init__(self, runtime: Any, stage: int, dp_rank: int) -> None:
        self._zero = runtime.optimizer
        self._stage = stage
        self._dp_rank = dp_rank
        self.optimizer: Optimizer = runtime.optimizer if stage == 0 else runtime.optimizer.optimizer
        """PyTorch's, or one like it, over the flat tensors."""

    @property
    def are_cut(self) -> bool:
        """Whether every element is on one data-parallel rank only; else all have all."""
        return self._stage > 0

    def of(self, parameter: nn.Parameter) -> Fragment:
        """The fragment of a parameter; a frozen one has no master, and its own elements stand for it."""
        if self._stage == 0:
            return Fragment(parameter, 0, 0, parameter.numel())
        if self._stage == 3:
            return self._of_padded_part(parameter)
        if not parameter.requires_grad:
            return Fragment(parameter, 0, 0, parameter.numel() if self._dp_rank == 0 else 0)
        found = parameter._hp_mapping  # type: ignore[attr-defined]
        if found is None:
            return Fragment(self._zero.single_partition_of_fp32_groups[0], 0, 0, 0)
        here, there = found.hp_fragment_address, found.lp_fragment_address
        flat = self._zero.single_partition_of_fp32_groups[found.param_group_index]
        return Fragment(flat, here.start, there.start, here.numel)

    def _of_padded_part(self, parameter: Any) -> Fragment:
        if parameter.requires_grad:
            group, offset, padded = self._zero.grad_position[self._zero.get_param_id(parameter)]
            flat = self._zero.fp32_partitioned_groups_flat[group]
        else:
            flat, offset, padded = parameter.ds_tensor, 0, parameter.ds_tensor.numel()
        start = padded * self._dp_rank
        return Fragment(flat, offset, start, min(max(parameter.ds_numel - start, 0), padded))

    def lasting(self, parameters: list[nn.Parameter]) -> dict[str, list[Tensor]]:
        """Weights, gradients and optimizer states, wherever a stage keeps them; see `Engine.lasting`."""
        weights: list[Tensor] = [parameter.detach() for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        if self._stage > 0:
            lists = self._zero.averaged_gradients.values()
            gradients += [grad for grads in lists if grads is not None for grad in grads]
        if self._stage == 3:
            weights += [parameter.ds_tensor for parameter in parameters]  # type: ignore[attr-defined]
            gradients.append(self._zero.grad_partitions_flat_buffer)
            states += self._zero.fp32_partitioned_groups_flat
        elif self._stage > 0:
            states += self._zero.single_partition_of_fp32_groups
        return {
            "weights": weights,
            "gradients": [grad for grad in gradients if grad is not None],
            "optimizer states": [value for value in states if isinstance(value, Tensor)],
        }

    def state(self, fragment: Fragment) -> dict[str, Any]:
        """The optimizer's state of the tensor that a fragment is in; empty before the first step."""
        return self.optimizer.state.get(fragment.flat, {})

    def begin_state(self, fragment: Fragment, step: float) -> dict[str, Any]:
        """The state that a fragment's tensor has, or is given, with moments of zero, after so many steps."""
        flat = fragment.flat
        state = self.optimizer.state[flat]
        if not state:
            state["exp_avg"] = torch.zeros_like(flat, memory_format=torch.contiguous_format)
            state["exp_avg_sq"] = torch.zeros_like(flat, memory_format=torch.contiguous_format)
        # DeepSpeed's own Adam counts in Python, PyTorch's fused one beside the moments.
        counts_in_tensor = isinstance(self.optimizer, torch.optim.AdamW)
        state["step"] = torch.tensor(step, device=flat.device) if counts_in_tensor else int(step)
        return state
