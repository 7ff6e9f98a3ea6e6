"""Twenty steps under every launcher have the losses and gradient norms of one process."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from launched import LaunchedRun, curve, execute, launch, write_tiny_run

RUNS = [
    LaunchedRun("local", ("--via", "local")),
    LaunchedRun("torchrun-2", ("--via", "torchrun", "--gpus-per-node", "2")),
    LaunchedRun("torchrun-2-tracks", ("--via", "torchrun", "--gpus-per-node", "2", "parallel.track=2")),
    LaunchedRun("torchrun-4", ("--via", "torchrun", "--gpus-per-node", "4", "parallel.dp_shard=2")),
    LaunchedRun("torchrun-4-tracks", ("--via", "torchrun", "--gpus-per-node", "4", "parallel.track=2")),
    LaunchedRun("accelerate-single", ("--via", "accelerate")),
    LaunchedRun("accelerate-fsdp2", ("--via", "accelerate", "--gpus-per-node", "2")),
    LaunchedRun("accelerate-fsdp2-tracks", ("--via", "accelerate", "--gpus-per-node", "2", "parallel.track=2")),
    LaunchedRun("accelerate-fsdp2-4-tracks", ("--via", "accelerate", "--gpus-per-node", "4", "parallel.track=2")),
    LaunchedRun(
        "deepspeed-launcher-tracks",
        ("--via", "deepspeed", "--gpus-per-node", "2", "parallel.track=2", "parallel.engine=native"),
        needs="deepspeed",
    ),
]

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


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_launched_run_is_that_of_one_process(
    run: LaunchedRun, config: Path, one_process: list[tuple[float, float]]
) -> None:
    if run.needs and find_spec(run.needs) is None:
        pytest.skip(f"{run.needs} is not installed")
    folder = config.parent / run.name
    done = launch(str(config), *run.arguments, f"run.dir={folder}", more=run.environment)
    assert done.returncode == 0, done.stdout
    ours = curve(folder)
    assert len(ours) == len(one_process) == 20
    for (loss, norm), (expected_loss, expected_norm) in zip(ours, one_process, strict=True):
        assert loss == pytest.approx(expected_loss, rel=run.tolerance)
        assert norm == pytest.approx(expected_norm, rel=10 * run.tolerance)


def test_fsdp_of_accelerate_is_our_own_on_a_cpu(config: Path) -> None:
    settings = ["parallel.track=2", "train.max_steps=1", f"run.dir={config.parent / 'sharded'}"]
    done = launch(str(config), "--via", "accelerate", "--gpus-per-node", "4", *settings)
    assert "ranks    4: track 2 x dp_replicate 1 x dp_shard 2" in done.stdout, done.stdout


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
    ours = [value for pair in curve(tmp_path / "run") for value in pair]
    assert ours == pytest.approx([value for pair in one_process[:3] for value in pair], rel=1e-4)


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
    ours = [loss for loss, _ in curve(folder)]
    assert ours == pytest.approx([loss for loss, _ in one_process], rel=1e-5)
