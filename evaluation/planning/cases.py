"""What is planned and run."""

import random
from dataclasses import dataclass, field
from typing import Any

from evaluation.measured_step import small_run
from parallax.config.load import load_config
from parallax.config.run import RunConfig


@dataclass(frozen=True)
class Case:
    """A configuration that is planned and run."""

    name: str
    ranks: int = 1
    changes: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """Of its processes, beside this one's."""


def _model(**sizes: int) -> dict[str, Any]:
    """The small model with some of its sizes changed."""
    base = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "hidden_size": 64, "intermediate_size": 172}
    return {**base, "vocab_size": 1000, "max_seq_len": 64, **sizes}


CASES = (
    Case("one pass", changes={"model": _model(num_loops=1)}),
    Case("two passes"),
    Case("three passes", changes={"model": _model(num_loops=3)}),
    Case("one track", changes={"model": _model(num_tracks=1)}),
    Case("checkpointing", changes={"train__activation_checkpointing": True}),
    Case(
        "three passes, checkpointing",
        changes={"model": _model(num_loops=3), "train__activation_checkpointing": True},
    ),
    Case("loss in chunks of 32", changes={"loss__chunk_tokens": 32}),
    Case("loss in one chunk", changes={"loss__chunk_tokens": 4096}),
    Case("micro-batch 2 of 8", changes={"train__micro_batch": 2}),
    Case("DDP over 2", 2),
    Case("FSDP2 over 2", 2, {"parallel__dp_shard": 2}),
    Case("track 2 over 2", 2, {"parallel__track": 2}),
)
_DRAWN = frozenset(random.Random(20261126).sample([case.name for case in CASES], 4))
"""Drawn before the first run."""
_KNOWN_BEFORE = frozenset(("two passes", "track 2 over 2"))
"""Two of the drawn were compared already when the planner was written (`tests/distributed/test_plan_holds.py`)."""
FRESH = (
    Case("three passes, FSDP2 over 2", 2, {"model": _model(num_loops=3), "parallel__dp_shard": 2}),
    Case("checkpointing, track 2 over 2", 2, {"train__activation_checkpointing": True, "parallel__track": 2}),
)
"""Chosen in their place before they were run, after the first run of `CASES`; nothing was tuned in between."""
HELD_OUT = (_DRAWN - _KNOWN_BEFORE) | {case.name for case in FRESH}
"""Not used while the planner was written or tuned."""


def _zero(stage: int, precision: str = "fp32", ranks: int = 2, **changes: Any) -> Case:
    """ZeRO over the data-parallel ranks."""
    tracks = changes.get("parallel__track", 1)
    name = f"ZeRO-{stage} over {ranks // tracks}, {precision}"
    for key, value in changes.items():
        name += f", {key.partition('__')[2].replace('_', ' ')} {value}"
    zero = {"parallel__engine": "deepspeed", "deepspeed__zero_stage": stage, "train__precision": precision}
    return Case(name, ranks, zero | changes)


ZERO = (
    *(_zero(stage, precision) for stage in (1, 2, 3) for precision in ("fp32", "bf16")),
    _zero(2, "bf16", train__micro_batch=2),
    _zero(3, "bf16", train__micro_batch=2),
    _zero(3, "fp32", ranks=4, parallel__track=2),
)
_SHAPES = (
    ("reference, 1 sequence", {"train.micro_batch": 1}),
    ("reference, 2 sequences", {"train.micro_batch": 2}),
    ("reference, 4 sequences, checkpointing", {"train.activation_checkpointing": "true"}),
)
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""Every larger tensor comes from the system and goes back to it; a run is slower for it."""
GROWTH = (
    *(Case(name, changes=changes) for name, changes in _SHAPES),
    *(Case(f"{name}, memory returned", changes=changes, environment=RETURNED) for name, changes in _SHAPES),
)
"""As a run keeps freed memory, and without that."""


def config_of(case: Case) -> RunConfig:
    """The run of a case of `CASES`."""
    changes = dict(case.changes)
    model = changes.pop("model", {})
    return small_run(case.ranks, **{f"model__{key}": value for key, value in model.items()}, **changes)


def growth_config(case: Case) -> RunConfig:
    """The run of a case of `GROWTH`."""
    settings = [f"{key}={value}" for key, value in case.changes.items()]
    micro_batch = case.changes.get("train.micro_batch", 4)
    fixed = ["runtime.device=cpu", "train.precision=fp32", f"train.global_batch={micro_batch}"]
    return load_config("configs/reference.yaml", [*fixed, *settings])
