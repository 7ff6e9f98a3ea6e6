from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from rich.table import Table


class Phase(StrEnum):
    """The part of an optimizer step that waits for a collective."""

    FORWARD = "forward"
    BACKWARD = "backward"
    GRADIENTS = "gradients"
    """Gradients of parameters on their way over the data-parallel axes."""
    NORM = "norm"
    COUNTERS = "counters"
    """Tokens and loss sums."""
    SETUP = "setup"
    """What DDP agrees on once, in its second forward, about the order of its buckets; no formula predicts it."""


class Kind(StrEnum):
    """What a collective does; the payload that is counted, and what a ring of n ranks sends of it per rank."""

    ALL_REDUCE = "all_reduce"
    """Payload: the tensor. Sent: 2 (n - 1) / n of it."""
    ALL_GATHER = "all_gather"
    """Payload: what this rank gives. Sent: n - 1 times."""
    REDUCE_SCATTER = "reduce_scatter"
    """Payload: the whole tensor. Sent: (n - 1) / n of it."""
    ALL_TO_ALL = "all_to_all"
    """Payload: what is for other ranks. Sent: the same."""
    BROADCAST = "broadcast"
    """Payload: the tensor. Sent: (n - 1) / n of it, the mean over the ranks of a ring."""


class Key(NamedTuple):
    """When, where and how something moves."""

    phase: Phase
    axis: str
    kind: str


@dataclass(frozen=True)
class Traffic:
    """What collectives of one key move in a step, on one rank."""

    ranks: int
    """Of the group, n."""
    calls: int | None
    """Collectives; None: not fixed, as DDP cuts its gradients into buckets as it sees fit."""
    payload_bytes: int

    def __add__(self, other: "Traffic") -> "Traffic":
        calls = None if self.calls is None or other.calls is None else self.calls + other.calls
        return replace(self, calls=calls, payload_bytes=self.payload_bytes + other.payload_bytes)


Ledger = Mapping[Key, Traffic]
"""The traffic of a step, recorded or predicted."""


def sent_bytes(ledger: Ledger) -> dict[Key, int]:
    """What this rank sends if every collective runs as a ring (see `Kind`), rounded down.

    The algorithm is the backend's choice; a ring is the least that any can send per rank for large payloads.
    """
    return {key: ring_bytes(key.kind, traffic.ranks, traffic.payload_bytes) for key, traffic in ledger.items()}


def ring_bytes(kind: str, n: int, payload: int) -> int:
    """What one of n ranks sends of a payload; see `Kind`."""
    match kind:
        case Kind.ALL_REDUCE:
            return 2 * (n - 1) * payload // n
        case Kind.ALL_GATHER:
            return (n - 1) * payload
        case Kind.REDUCE_SCATTER | Kind.BROADCAST:
            return (n - 1) * payload // n
    return payload


def sum_traffic(entries: Iterable[tuple[Key, Traffic]]) -> dict[Key, Traffic]:
    """One entry a key; what moves nothing, or has a group of one rank, is left out."""
    total: dict[Key, Traffic] = {}
    for key, traffic in entries:
        if traffic.ranks > 1 and traffic.payload_bytes:
            total[key] = total[key] + traffic if key in total else traffic
    return total


def find_differences(recorded: Ledger, predicted: Ledger) -> list[str]:
    """One line for every key, setup aside, where calls or bytes were not those of the formula."""
    lines = []
    for key in sorted({*recorded, *predicted}):
        found, expected = recorded.get(key), predicted.get(key)
        if key.phase is Phase.SETUP or found == expected:
            continue
        if found is not None and expected is not None and expected.calls is None:
            found = replace(found, calls=None)
            if found == expected:
                continue
        lines.append(f"{' '.join(key)}: recorded {_shown(found)}, predicted {_shown(expected)}")
    return lines


def journal_values(recorded: Ledger, predicted: Ledger) -> dict[str, Any]:
    """Values for a journal line: bytes sent by this rank and step, per axis and phase, beside the formula's.

    `sent_bytes/AXIS/PHASE` and `sent_bytes_predicted/AXIS/PHASE`; `ledger_differences` is the number of keys
    in which the two differ.
    """
    values: dict[str, Any] = {"ledger_differences": len(find_differences(recorded, predicted))}
    for name, ledger in (("sent_bytes", recorded), ("sent_bytes_predicted", predicted)):
        for key, sent in sent_bytes(ledger).items():
            place = f"{name}/{key.axis}/{key.phase}"
            values[place] = values.get(place, 0) + sent
    return values


def traffic_table(recorded: Ledger, predicted: Ledger, title: str) -> Table:
    """Every key's calls, payload and bytes sent, each beside the formula's."""
    table = Table(title=title)
    for heading in ("phase", "axis", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("calls", "formula", "payload bytes", "formula", "sent bytes", "formula"):
        table.add_column(heading, justify="right", no_wrap=True)
    sent, expected = sent_bytes(recorded), sent_bytes(predicted)
    for key in sorted({*recorded, *predicted}):
        found, formula = recorded.get(key, _NOTHING), predicted.get(key, _NOTHING)
        numbers = (
            (found.calls, formula.calls),
            (found.payload_bytes, formula.payload_bytes),
            (sent.get(key, 0), expected.get(key, 0)),
        )
        table.add_row(*key, *(_count(number) for pair in numbers for number in pair))
    return table


_NOTHING = Traffic(ranks=1, calls=0, payload_bytes=0)


def _count(number: int | None) -> str:
    return "any" if number is None else f"{number:,}"


def _shown(traffic: Traffic | None) -> str:
    if traffic is None:
        return "nothing"
    calls = "some" if traffic.calls is None else traffic.calls
    return f"{calls} calls with {traffic.payload_bytes:,} bytes among {traffic.ranks} ranks"
