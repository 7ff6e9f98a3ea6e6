"""Between ZeRO's fragments and whole tensors of a parameter, which any engine and layout can read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallax.errors import CheckpointError
from parallax.parallel.deepspeed.fragments import Fragment, Fragments
from parallax.parallel.engine import Read, SavedTensors
from parallax.parallel.placement import Placement
from parallax.runtime.piece import Piece, whole_piece

_MOMENTS = ("exp_avg", "exp_avg_sq")
_OPTIMIZER = "AdamW"


class PartitionState:
    """Weights and optimizer state of a model whose parameters ZeRO cut into fragments.

    Parameter number i belongs, while it is saved or loaded, to rank i mod n of the n data-parallel ranks: whole
    tensors exist one at a time, and on the host a rank keeps an n-th of them.

    Args:
        parameters: of this rank's part of the model, by name.
        shapes: of the same, before they were cut.
        fragments: where they are.
        placement: of the model.
        group: the data-parallel ranks.
        device: what their collectives run on.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        shapes: Mapping[str, torch.Size],
        fragments: Fragments,
        placement: Placement,
        group: dist.ProcessGroup,
        device: torch.device,
    ) -> None:
        self._parameters = dict(parameters)
        self._shapes = dict(shapes)
        self._fragments = fragments
        self._placement = placement
        self._group = group
        self._device = device

    def local_weights(self) -> dict[str, Tensor]:
        """This rank's elements of the fp32 masters, flat."""
        return {name: fragment.of(fragment.flat) for name, _, fragment in self._all()}

    def put_masters(self, masters: Mapping[str, Tensor]) -> None:
        """Sets the fp32 masters from whole values of this rank's part of the model."""
        for name, _, fragment in self._trained():
            fragment.of(fragment.flat).copy_(self._cut(masters[name], fragment))

    def weight_pieces(self) -> dict[str, Piece]:
        """The weights that belong to this rank, on the CPU. Collective."""
        pieces = {}
        for name, owner, fragment in self._all():
            whole = self._gather(fragment, fragment.flat, name, owner)
            if whole is not None:
                pieces[name] = self._placement.piece(name, whole)
        return pieces

    def optimizer_pieces(self) -> tuple[dict[str, Piece], dict[str, Any]]:
        """The optimizer's state that belongs to this rank, on the CPU. Collective."""
        pieces: dict[str, Piece] = {}
        steps = self._num_steps()
        for name, owner, fragment in self._trained():
            if not steps:
                break
            for key in _MOMENTS:
                whole = self._gather(fragment, self._fragments.state(fragment).get(key), name, owner)
                if whole is not None:
                    pieces[f"{key}/{name}"] = self._placement.piece(name, whole)
            if owner == self._rank:
                pieces[f"step/{name}"] = whole_piece(torch.tensor(steps))
        return pieces, {"optimizer": _OPTIMIZER, "values": {}}

    def load_optimizer_state(
        self, saved: SavedTensors, extra: Mapping[str, Any], read: Read, source: str | Path
    ) -> None:
        """See `Engine.load_optimizer_state`."""
        if extra["optimizer"] != _OPTIMIZER:
            raise CheckpointError(
                f"{source} holds the state of {extra['optimizer']}, and DeepSpeed runs {_OPTIMIZER}; start a new "
                f"run with train.init_from to keep only the weights"
            )
        trained = list(self._trained())
        wanted = {
            f"step/{name}": whole_piece(torch.zeros(())) for name, _, _ in trained if f"step/{name}" in saved
        }
        for name, owner, _ in trained:
            if owner == self._rank and f"step/{name}" in saved:
                for key in _MOMENTS:
                    wanted[f"{key}/{name}"] = self._placement.piece(name, torch.empty(self._shapes[name]))
        read(wanted)
        steps = {
            float(wanted[f"step/{name}"].local) if f"step/{name}" in wanted else 0.0 for name, _, _ in trained
        }
        if len(steps) > 1:
            raise CheckpointError(
                f"{source}: parameters were trained for different numbers of steps ({sorted(steps)}), and "
                f"DeepSpeed counts once for all; continue with parallel.engine=native"
            )
        [num_steps] = steps
        for name, owner, fragment in trained if num_steps else ():
            state = self._fragments.begin_state(fragment, num_steps)
            for key in _MOMENTS:
                piece = wanted.get(f"{key}/{name}")
                whole = self._spread(piece.local if piece else None, name, owner)
                fragment.of(state[key]).copy_(self._cut(whole, fragment))

    @property
    def _rank(self) -> int:
        return dist.get_rank(self._group)

    def _all(self) -> Iterator[tuple[str, int, Fragment]]:
        """Name, owner among the data-parallel ranks, and fragment of every parameter."""
        for number, (name, parameter) in enumerate(self._parameters.items()):
            yield name, number % self._group.size(), self._fragments.of(parameter)

    def _trained(self) -> Iterator[tuple[str, int, Fragment]]:
        """The same of those that have optimizer state."""
        return (found for found in self._all() if self._parameters[found[0]].requires_grad)

    def _num_steps(self) -> float:
        """Updates so far, as some rank of the group counts them: one without fragments counts none."""
        counts = [float(self._fragments.state(fragment).get("step", 0)) for _, _, fragment in self._trained()]
        most = torch.tensor(max(counts, default=0.0), device=self._device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=self._group)
        return float(most)

    def _gather(self, fragment: Fragment, values: Tensor | None, name: str, owner: int) -> Tensor | None:
        """A whole tensor on its owner's CPU; None on the others."""
        shape = self._shapes[name]
        whole = torch.zeros(shape.numel(), device=self._device)
        if values is not None:
            whole[fragment.start : fragment.start + fragment.size] = fragment.of(values)
        if self._fragments.are_cut:
            dist.reduce(whole, group_dst=owner, group=self._group)
        return whole.view(shape).cpu() if owner == self._rank else None

    def _spread(self, whole: Tensor | None, name: str, owner: int) -> Tensor:
        """A whole tensor on every rank, from its owner's CPU."""
        values = torch.empty(self._shapes[name], device=self._device) if whole is None else whole.to(self._device)
        dist.broadcast(values, group_src=owner, group=self._group)
        return values

    @staticmethod
    def _cut(whole: Tensor, fragment: Fragment) -> Tensor:
        return whole.reshape(-1)[fragment.start : fragment.start + fragment.size]
