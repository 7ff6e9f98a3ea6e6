import resource
import subprocess
import sys
from pathlib import Path

import pytest
from plan_cases import CASES, CHECKOUT, CONFIG, GOLDEN, PlanCase, plan_of, text_of

from launch.place import Place
from launch.registry import LAUNCHERS
from launch.show import describe_plan
from parallax.parallel.mesh import rank_grid

SEVERAL = [name for name in LAUNCHERS if name != "local"]


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_plan_is_the_one_on_file(case: PlanCase) -> None:
    # After a change that is meant: python tests/launch/plan_cases.py
    assert text_of(case) == (GOLDEN / f"{case.name}.txt").read_text(encoding="utf-8")


def test_every_golden_file_is_that_of_a_plan() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_plan_fits_a_terminal(case: PlanCase) -> None:
    assert max(map(len, text_of(case).splitlines())) <= 80


@pytest.mark.parametrize("order", ["track_inside", "track_across"])
@pytest.mark.parametrize("sizes", [(2, 1, 4), (1, 2, 4), (2, 2, 2), (2, 1, 1), (1, 1, 4)])
@pytest.mark.parametrize("via", SEVERAL)
def test_every_launcher_arranges_ranks_as_the_mesh_does(via: str, sizes: tuple[int, int, int], order: str) -> None:
    track, shard, replicate = sizes
    nodes = 2 if replicate > 1 else 1
    place = Place(nodes, track * shard * replicate // nodes, host="node0" if nodes > 1 else "", port=29501)
    overrides = [f"parallel.track={track}", f"parallel.dp_shard={shard}", f"parallel.order={order}"]
    if via == "deepspeed":
        overrides.append("parallel.engine=native")
    overrides += ["train.global_batch=8", f"parallel.dp_replicate={replicate}"]
    plan = plan_of(via, place, overrides)
    grid = rank_grid(plan.layout).reshape(-1, track)  # (dp, track)
    assert {(r.dp, r.track): r.rank for r in plan.ranks} == {
        (dp, t): int(grid[dp, t]) for dp in range(grid.shape[0]) for t in range(track)
    }


def dry_run(*arguments: str) -> tuple[str, float]:
    """What it prints, and the processor's seconds, which on an idle machine are the clock's."""
    begun = processor_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "launch", CONFIG, "--dry-run", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, processor_seconds() - begun


def processor_seconds() -> float:
    """Of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow  # so that no other test runs beside it
def test_a_dry_run_takes_a_moment() -> None:
    # The best of several: on an idle machine one takes a third of this.
    assert min(dry_run("--via", "torchrun", "--gpus-per-node", "2")[1] for _ in range(5)) < 0.5


def test_a_dry_run_loads_no_torch_and_starts_nothing(tmp_path: Path) -> None:
    for via in LAUNCHERS:
        more = ["--time", "1:00:00"] if via == "slurm" else []
        program = (
            f"import sys; from launch.__main__ import main; "
            f"main(['{CONFIG}', '--via', '{via}', '--dry-run', 'run.dir={tmp_path / 'run'}', *{more}]); "
            f"print(sorted({{'torch', 'numpy', 'accelerate', 'deepspeed'}} & sys.modules.keys()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=CHECKOUT
        )
        assert done.stdout.splitlines()[-1] == "[]", done.stderr
        assert f"nothing was {'submitted' if via == 'slurm' else 'started'}" in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_large_plan_is_shown_from_both_ends() -> None:
    plan = plan_of("torchrun", Place(64, 8, host="node0", port=29501), ["train.global_batch=512"])
    assert len(plan.ranks) == 512
    text = "\n".join(describe_plan(plan, dry_run=True))
    assert "… 496 more" in text
    assert "          511    63   511      0" in text
