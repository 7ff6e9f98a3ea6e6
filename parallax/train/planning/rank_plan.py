from dataclasses import dataclass

from parallax.config.layout import Layout
from parallax.metrics.allocations import BACKWARD
from parallax.parallel.ledger import Collective

PHASES = ("forward", BACKWARD, "update")
"""The phases of a step, in which memory is told apart."""
KINDS = (
    "weights",
    "gradients",
    "optimizer states",
    "gathered weights",
    "reduction buffers",
    "activations",
    "logits and head",
    "working memory",
)
"""What memory is for. Gathered weights are FSDP2's or ZeRO-3's, reduction buffers those of FSDP2, DDP or ZeRO;
logits and head is all that the head takes in its forward, its gradients included; working memory is the rest of
backward and update."""


@dataclass(frozen=True)
class Choice:
    """What `auto` stands for here, and why."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class RankPlan:
    """What one optimizer step takes on one rank, from the second step on."""

    layout: Layout
    rank: int
    global_batch: int
    accumulation: int
    choices: list[Choice]
    notes: list[str]
    """Where the run as it is configured would not start, and what the figures leave out."""
    parameters: dict[str, int]
    """On this rank, before ZeRO divides them: of tracks; of embedding and head; of the rest by its name, such as
    norm and positions."""
    memory: dict[str, dict[str, int]]
    """Phase -> kind -> bytes at the moment when the phase holds most."""
    collectives: list[tuple[Collective, int]]
    """Each with its number in an optimizer step."""
    seconds: float
    """Spent on planning."""

    @property
    def peak_bytes(self) -> int:
        """The most that the step holds in tensors."""
        return max(sum(kinds.values()) for kinds in self.memory.values())
