"""A bad launch ends in one clear line, with exit code 2, and nothing is started."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from launched import CHECKOUT, environment

from launch.machine import check_gpus, count_gpus
from launch.place import Place
from parallax.errors import BackendError

TINY = "configs/tiny.yaml"
TWO = ("--via", "torchrun", "--gpus-per-node", "2")
TWO_NODES = ("--via", "torchrun", "--nodes", "2", "--gpus-per-node", "1")


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    """Nothing that this process started outlives the test."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before


def refuse(*arguments: str, more: dict[str, str] | None = None) -> str:
    """The line of a launch that is refused."""
    done = subprocess.run(
        [sys.executable, "-m", "launch", *arguments],
        env=environment(more),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((TINY, "--via", "torchrum"), r"--via torchrum: no such launcher; did you mean torchrun\?"),
    ((TINY, "--via", "xyz"), r"--via xyz: no such launcher; there are local, torchrun, accelerate, deepspeed"),
    ((), r"CONFIG is missing; for example: python -m launch configs/tiny.yaml"),
    (("configs/tinny.yaml",), r"configs/tinny.yaml: no such configuration file; did you mean configs/tiny.yaml\?"),
    ((TINY, "--gpus-per-node", "2"), r"--via local starts one process, and 2 are asked for; use --via torchrun"),
    ((TINY, "--gpus-per-node", "two"), r"argument --gpus-per-node/--processes-per-node: invalid int value: 'two'"),
    ((TINY, "--gpus-per-node", "0"), r"--processes-per-node 0: expected 1 or more"),
    ((TINY, *TWO, "--gpu", "1"), r"unrecognized arguments: --gpu 1"),
    (
        (TINY, "--via", "torchrun", "--gpus-per-node", "3", "parallel.track=2"),
        r"parallel.track=2 .* 3 ranks; nearest",
    ),
    ((TINY, *TWO, "parallel.dp_shard=3"), r"dp_shard=3 .*and the run has 2 ranks; nearest: track=1 dp_shard=2"),
    ((TINY, *TWO, "train.global_batch=9"), r"train: global_batch=9 is not a multiple of .* 2 data-parallel ranks"),
    ((TINY, *TWO_NODES), r"2 nodes meet at node 0: add --master HOST:PORT"),
    ((TINY, *TWO_NODES, "--master", "node0:x"), r"--master node0:x: expected HOST:PORT, for example node0:29500"),
    ((TINY, *TWO_NODES, "--master", "node0", "--node-rank", "2"), r"--node-rank 2 is none of 2 node\(s\)"),
    (
        (TINY, "--via", "accelerate", "--gpus-per-node", "2", "parallel.dp_shard=1", "runtime.device=cpu"),
        r"ddp.yaml \(distributed_type MULTI_GPU\) is for GPUs, and this node has none; this works: python -m "
        r"launch configs/tiny.yaml parallel.dp_shard=1 runtime.device=cpu --via torchrun --gpus-per-node 2",
    ),
    (
        (
            TINY,
            "--via",
            "accelerate",
            "--gpus-per-node",
            "2",
            "--accelerate-config",
            "configs/accelerate/single.yaml",
        ),
        r"single.yaml \(distributed_type NO\) starts one process only; this works",
    ),
    (
        (TINY, "--via", "accelerate", "--accelerate-config", "configs/accelerate/zero9.yaml"),
        r"configs/accelerate/zero9.yaml: no such configuration file of accelerate",
    ),
    (
        (
            TINY,
            "--via",
            "accelerate",
            "--accelerate-config",
            "configs/accelerate/zero2.yaml",
            "deepspeed.zero_stage=3",
        ),
        r"zero2.yaml says zero_stage=2 and the run configuration says deepspeed.zero_stage=3; change one of them",
    ),
    (
        (
            TINY,
            *TWO,
            "parallel.engine=deepspeed",
            "deepspeed.settings=configs/deepspeed/zero3.json",
            "deepspeed.zero_stage=1",
        ),
        r"configs/deepspeed/zero3.json says zero_optimization.stage=3 and .* deepspeed.zero_stage=1",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert re.search(message, refuse(*arguments))


def test_a_port_that_is_taken_is_named_with_a_free_one() -> None:
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        line = refuse(TINY, *TWO_NODES, "--master", f"localhost:{port}")
    assert re.search(
        rf"--master localhost:{port}: the port is taken on this host .*; choose another, for ex", line
    )


def test_missing_deepspeed(tmp_path: Path) -> None:
    # A meta path that knows no deepspeed stands for a machine without it.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'deepspeed' else found(name, package)\n"
    )
    path = f"{tmp_path}{os.pathsep}{CHECKOUT}"
    for via in ("deepspeed", "torchrun", "accelerate"):
        way = ("--via", via, "--gpus-per-node", "2", "parallel.engine=deepspeed")
        line = refuse(TINY, *way, more={"PYTHONPATH": path})
        assert "deepspeed is not installed; pip install 'parallax[deepspeed]', or use --via torchrun" in line


def test_a_dry_run_tells_what_this_machine_would_refuse() -> None:
    on_cpu = ("--via", "accelerate", "--gpus-per-node", "2", "parallel.dp_shard=1", "runtime.device=cpu")
    done = subprocess.run(
        [sys.executable, "-m", "launch", TINY, "--dry-run", *on_cpu],
        env=environment(),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "warning  would not start here: configs/accelerate/ddp.yaml" in done.stdout


def test_more_processes_than_gpus() -> None:
    with pytest.raises(
        BackendError, match=r"--gpus-per-node 4: this node has 2 GPU\(s\); use --gpus-per-node 2, or"
    ):
        check_gpus(Place(1, 4), 2, "auto")
    check_gpus(Place(1, 4), 2, "cpu")
    check_gpus(Place(1, 4), 0, "auto")


@pytest.mark.parametrize(
    ("visible", "number"), [(None, 2), ("", 0), ("-1", 0), ("1", 1), ("0,1", 2), ("0,1,2,3", 2)]
)
def test_gpus_are_counted_without_torch(tmp_path: Path, visible: str | None, number: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert count_gpus(variables, tmp_path) == number
