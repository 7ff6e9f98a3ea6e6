"""Twenty steps under every launcher have the losses and gradient norms of one process."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from launched import CHECKOUT, LaunchedRun, assert_same_curve, curve, execute, launch, write_tiny_run

RUNS = [
    LaunchedRun("local", ("--via", "local")),
    LaunchedRun("torchrun-2", ("--via", "torchrun", "--gpus-per-node", "2")),
    LaunchedRun("torchrun-2-tracks", ("--via", "torchrun", "--gpus-per-node", "2", "parallel.track=2")),
    LaunchedRun("torchrun-4", ("--via", "torchrun", "--gpus-per-node", "4", "parallel.dp_shard=2")),
    LaunchedRun("torchrun-4-tracks", ("--via", "torchrun", "--gpus-per-node", "4", "parallel.track=2")),
    LaunchedRun("accelerate-single", ("--via", "accelerate")),
    LaunchedRun("accelerate-fsdp2", ("--via", "accelerate", "--gpus-per-node", "2")),
    LaunchedRun("accelerate-fsdp2-tracks", ("--via", "accelerate", "--gpus-per-node", "2", "parallel.track=2")),
    LaunchedRun(
        "accelerate-fsdp2-4-tracks",
        ("--via", "accelerate", "--gpus-per-node", "4", "parallel.track=2"),
        # accelerate's FSDP is our own.
        says="ranks    4: track 2 x dp_replicate 1 x dp_shard 2",
    ),
    LaunchedRun(
        "deepspeed-launcher-tracks",
        ("--via", "deepspeed", "--gpus-per-node", "2", "parallel.track=2", "parallel.engine=native"),
        needs="deepspeed",
    ),
]

ZERO = [
    LaunchedRun(
        f"{via}-zero{stage}{'-tracks' * (track > 1)}",
        (
            "--via",
            via,
            "--gpus-per-node",
            "2",
            "parallel.engine=deepspeed",
            f"deepspeed.zero_stage={stage}",
            f"parallel.track={track}",
        ),
        tolerance=1e-3,
        needs="deepspeed",
    )
    for via, stages in (("accelerate", (2, 3)), ("deepspeed", (1, 2, 3)))
    for stage in stages
    for track in (1, 2)
]
ALWAYS = {
    "torchrun-2",
    "torchrun-4",
    "accelerate-single",
    "accelerate-fsdp2-4-tracks",
    "deepspeed-launcher-tracks",
    "accelerate-zero2-tracks",
    "accelerate-zero3",
    "deepspeed-zero1",
    "deepspeed-zero3-tracks",
}
"""Every launcher, stage 1 to 3 and number of tracks; the others wait for `-m product`.

`local`, `torchrun-2-tracks` and `accelerate-fsdp2` are each a leg of the run that changes its launcher, below;
`accelerate-fsdp2-tracks` has its launcher with tracks in the run over four ranks, and `torchrun-4-tracks` its
launcher in `torchrun-4` and its layout in tests/distributed/test_elastic_runs.py.
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_run(tmp_path_factory.mktemp("launched"))


@pytest.fixture(scope="module")
def one_process(config: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step in one process."""
    folder = config.parent / "one"
    done = execute(["python", "-m", "parallax.train", str(config), f"run.dir={folder}"])
    assert done.returncode == 0, done.stdout
    return curve(folder)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(run, id=run.name, marks=[] if run.name in ALWAYS else [pytest.mark.product])
        for run in (*RUNS, *ZERO)
    ],
)
def test_a_launched_run_is_that_of_one_process(
    run: LaunchedRun, config: Path, one_process: list[tuple[float, float]]
) -> None:
    if run.needs and find_spec(run.needs) is None:
        pytest.skip(f"{run.needs} is not installed")
    folder = config.parent / run.name
    done = launch(str(config), *run.arguments, f"run.dir={folder}", more=run.environment)
    assert done.returncode == 0, done.stdout
    assert run.says in done.stdout
    ours = curve(folder)
    assert len(ours) == 20
    assert_same_curve(ours, one_process, run.tolerance)


SCRIPTS = [
    ("local.sh", (), {}),
    ("torchrun.sh", ("parallel.track=2",), {}),
    ("accelerate.sh", (), {}),
    ("accelerate.sh", (), {"FILE": "configs/accelerate/single.yaml", "PROCESSES": "1"}),
    ("deepspeed.sh", ("parallel.engine=native",), {"DS_ACCELERATOR": "cpu"}),
]


@pytest.mark.parametrize(("script", "settings", "more"), SCRIPTS)
def test_the_direct_commands_work(
    script: str,
    settings: tuple[str, ...],
    more: dict[str, str],
    config: Path,
    one_process: list[tuple[float, float]],
    tmp_path: Path,
    unused_port: int,
) -> None:
    if script == "deepspeed.sh" and find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    command = [f"launch/{script}", str(config), "train.max_steps=3", f"run.dir={tmp_path / 'run'}", *settings]
    done = execute(command, more | {"PORT": str(unused_port)})
    assert done.returncode == 0, done.stdout
    assert_same_curve(curve(tmp_path / "run"), one_process[:3])


def test_a_run_goes_on_under_another_launcher_and_layout(
    config: Path, one_process: list[tuple[float, float]]
) -> None:
    folder = config.parent / "changing"
    ways: list[tuple[str, ...]] = [
        ("--via", "accelerate", "--gpus-per-node", "2"),
        ("--via", "torchrun", "--gpus-per-node", "2", "parallel.track=2"),
        ("--via", "local"),
    ]
    for number, way in enumerate(ways, start=1):
        done = launch(str(config), *way, f"run.dir={folder}", f"train.max_steps={5 * number}")
        assert done.returncode == 0, done.stdout
    # The folder's own configuration starts it again too: what a launcher settled is not in it.
    done = launch(str(folder / "config.yaml"), "--via", "accelerate", "--gpus-per-node", "2", "train.max_steps=20")
    assert done.returncode == 0, done.stdout
    assert_same_curve(curve(folder), one_process)


_MULTI_CPU = (
    "distributed_type: MULTI_CPU\nmixed_precision: 'no'\nnum_machines: 1\nnum_processes: 4\nuse_cpu: true\n"
)


@pytest.mark.parametrize(("kind", "ranks"), [("MULTI_CPU", 4), ("MULTI_GPU", 2)])
def test_accelerate_without_a_plan_is_refused_on_a_cpu_with_the_torchrun_line(
    kind: str, ranks: int, config: Path, tmp_path: Path
) -> None:
    path = Path("configs/accelerate/ddp.yaml")
    if kind == "MULTI_CPU":
        path = tmp_path / "multi_cpu.yaml"
        path.write_text(_MULTI_CPU)
    program = ["-m", "parallax.train", str(config), f"run.dir={tmp_path / 'run'}"]
    done = execute(["accelerate", "launch", "--config_file", str(path), *program])
    assert done.returncode != 0
    told = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, done.stdout
    line = f"this works: torchrun --nproc-per-node {ranks} -m parallax.train {config} run.dir={tmp_path / 'run'}"
    assert told[0].endswith(line)
    assert not (tmp_path / "run").exists()


def test_another_number_of_ranks_than_planned_is_refused(config: Path, tmp_path: Path) -> None:
    program = ["-m", "parallax.train", str(config), f"run.dir={tmp_path / 'run'}"]
    done = execute(["python", *program], {"PARALLAX_PLANNED_RANKS": "4"})
    assert done.returncode == 2
    assert "error: the launch plan has 4 ranks and this process is one of WORLD_SIZE=1" in done.stdout


def test_contradictory_files_end_in_one_line(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "fp16.yaml"
    path.write_text((CHECKOUT / "configs/accelerate/fsdp2.yaml").read_text().replace("'no'", "fp16"))
    program = ["-m", "parallax.train", str(config), f"run.dir={tmp_path / 'run'}"]
    done = execute(["accelerate", "launch", "--config_file", str(path), *program])
    told = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: accelerate's configuration says mixed_precision=fp16 and the run configuration says "
        "train.precision=fp32; change one of them"
    ]
