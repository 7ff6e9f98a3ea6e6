"""Bytes counted and shown."""

import json

from rich.console import Console

from parallax.parallel.traffic import (
    Key,
    Kind,
    Phase,
    Traffic,
    journal_values,
    sent_bytes,
    sum_traffic,
    traffic_table,
)

FORWARD = Key(Phase.FORWARD, "track", Kind.ALL_REDUCE)
BUCKETS = Key(Phase.GRADIENTS, "dp", Kind.ALL_REDUCE)


def test_a_ring_of_four_sends_these_shares_of_the_payload() -> None:
    shares = {
        Kind.ALL_REDUCE: 1500,
        Kind.ALL_GATHER: 3000,
        Kind.REDUCE_SCATTER: 750,
        Kind.ALL_TO_ALL: 1000,
        Kind.BROADCAST: 750,
    }
    ledger = {Key(Phase.FORWARD, "track", kind): Traffic(4, 1, 1000) for kind in Kind}
    assert {key.kind: sent for key, sent in sent_bytes(ledger).items()} == shares


def test_calls_add_up_and_a_lonely_rank_sends_nothing() -> None:
    entries = [(FORWARD, Traffic(2, 1, 8)), (FORWARD, Traffic(2, 2, 16)), (BUCKETS, Traffic(1, 1, 8))]
    assert sum_traffic(entries) == {FORWARD: Traffic(2, 3, 24)}


def test_journal_values_are_scalars_per_axis_and_phase() -> None:
    recorded = {FORWARD: Traffic(2, 1, 8), FORWARD._replace(kind=Kind.ALL_TO_ALL): Traffic(2, 1, 4)}
    values = journal_values(recorded, {FORWARD: Traffic(2, 1, 8)})
    assert json.loads(json.dumps(values)) == {
        "ledger_differences": 1,
        "sent_bytes/track/forward": 12,
        "sent_bytes_predicted/track/forward": 8,
    }


def test_the_table_shows_both_sides() -> None:
    table = traffic_table({FORWARD: Traffic(2, 3, 4096)}, {BUCKETS: Traffic(2, None, 10)}, "a step")
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table)
    rows = [line.replace("│", " ").split() for line in shown.get().splitlines() if "all_reduce" in line]
    assert rows == [
        ["forward", "track", "all_reduce", "3", "0", "4,096", "0", "4,096", "0"],
        ["gradients", "dp", "all_reduce", "0", "any", "0", "10", "0", "10"],
    ]
