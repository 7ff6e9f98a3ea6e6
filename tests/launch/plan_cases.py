"""The plans that have a golden file. `python tests/launch/plan_cases.py` writes the files anew."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.place import Place
from launch.plan import Plan, make_plan
from launch.registry import LAUNCHERS
from launch.request import Request
from launch.show import describe_plan
from parallax.config.load import load_config

CHECKOUT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
CONFIG = "configs/tiny.yaml"


@dataclass(frozen=True)
class PlanCase:
    """A request, and the name of its file."""

    name: str
    via: str
    place: Place
    overrides: tuple[str, ...] = ()


def _place(nodes: int) -> Place:
    return Place(1, 2) if nodes == 1 else Place(2, 2, node_rank=1, host="node0", port=29501)


def _grid() -> list[PlanCase]:
    cases = [PlanCase("local-track1", "local", Place())]
    for via in ("torchrun", "accelerate", "deepspeed"):
        for nodes in (1, 2):
            for track in (1, 2):
                name = f"{via}-{nodes}node-track{track}"
                cases.append(PlanCase(name, via, _place(nodes), (f"parallel.track={track}",)))
    return cases


_ZERO3 = ("parallel.engine=deepspeed", "deepspeed.zero_stage=3")
CASES = [
    *_grid(),
    PlanCase("accelerate-ddp", "accelerate", _place(1), ("parallel.dp_shard=1",)),
    PlanCase("accelerate-zero3", "accelerate", _place(2), ("parallel.track=2", *_ZERO3)),
    PlanCase("torchrun-zero3", "torchrun", _place(1), _ZERO3),
    PlanCase("torchrun-across", "torchrun", _place(2), ("parallel.track=2", "parallel.order=track_across")),
    PlanCase("torchrun-shards", "torchrun", _place(2), ("parallel.dp_shard=2",)),
]


def plan_of(via: str, place: Place, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a request from the checkout, with no GPU in sight."""
    request = Request(
        config=load_config(CHECKOUT / CONFIG, overrides),
        arguments=(CONFIG, *overrides),
        place=place,
        python="python",
    )
    return make_plan(via, LAUNCHERS[via], request)


def text_of(case: PlanCase) -> str:
    """What is printed for it."""
    lines = describe_plan(plan_of(case.via, case.place, case.overrides), dry_run=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.chdir(CHECKOUT)
    for case in CASES:
        (GOLDEN / f"{case.name}.txt").write_text(text_of(case), encoding="utf-8")
