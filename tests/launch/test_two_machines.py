"""Two network namespaces stand for two machines: one node of the run in each, joined by a link."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from launched import CHECKOUT, assert_same_curve, curve, environment, execute, write_tiny_run

from evaluation.faults.network import Link, why_no_link

_SECONDS = 240.0
_STEPS = "train.max_steps=4"
_PLANNED = (
    sys.executable,
    "-m",
    "launch",
    "CONFIG",
    "--nodes",
    "2",
    "--node-rank",
    "NODE",
    "--gpus-per-node",
    "1",
)

_ZERO3 = ("parallel.engine=deepspeed", "deepspeed.zero_stage=3")

WAYS = [
    ("torchrun", ("launch/torchrun.sh", "CONFIG"), ("parallel.track=2",)),
    # The script runs with tracks below, and the layout under the plan.
    pytest.param("accelerate", ("launch/accelerate.sh", "CONFIG"), (), marks=pytest.mark.product),
    ("accelerate", ("launch/accelerate.sh", "CONFIG"), ("parallel.track=2",)),
    ("planned", (*_PLANNED, "--via", "torchrun", "--master", "MASTER"), ("parallel.dp_shard=2",)),
    ("planned", (*_PLANNED, "--via", "accelerate", "--master", "MASTER"), ()),
    ("deepspeed", (*_PLANNED, "--via", "deepspeed", "--master", "MASTER"), ("parallel.engine=native",)),
    ("deepspeed", (*_PLANNED, "--via", "deepspeed", "--master", "MASTER"), ("parallel.track=2", *_ZERO3)),
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    reason = why_no_link()
    if reason is not None:
        pytest.skip(reason)
    with Link() as joined:
        yield joined


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_run(tmp_path_factory.mktemp("two_machines"))


@pytest.fixture(scope="module")
def one_process(config: Path) -> list[tuple[float, float]]:
    folder = config.parent / "one"
    done = execute(["python", "-m", "parallax.train", str(config), f"run.dir={folder}", _STEPS])
    assert done.returncode == 0, done.stdout
    return curve(folder)


@pytest.mark.parametrize(("name", "command", "settings"), WAYS)
def test_two_machines_train_as_one_process_does(
    name: str,
    command: tuple[str, ...],
    settings: tuple[str, ...],
    link: Link,
    config: Path,
    one_process: list[tuple[float, float]],
    unused_port: int,
    tmp_path: Path,
) -> None:
    if name == "deepspeed" and find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    nodes = []
    for node, inside in enumerate([(), ("ip", "netns", "exec", link.namespace)]):
        words = {"CONFIG": str(config), "NODE": str(node), "MASTER": f"{link.address}:{unused_port}"}
        given = [words.get(word, word) for word in command]
        interface = link.there if inside else link.here
        variables = {"NODES": "2", "NODE_RANK": str(node), "MASTER": link.address, "PORT": str(unused_port)}
        variables |= {"PROCESSES": "2" if name == "accelerate" else "1", "GLOO_SOCKET_IFNAME": interface}
        log = (tmp_path / f"node{node}.log").open("w")
        nodes.append(
            subprocess.Popen(
                [*inside, *given, f"run.dir={tmp_path / 'run'}", _STEPS, *settings],
                env=environment(variables),
                cwd=CHECKOUT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()
    try:
        codes = [node.wait(_SECONDS) for node in nodes]
    finally:
        for process in nodes:
            process.terminate()  # a launcher ends what it started
            process.wait(60)
    assert codes == [0, 0], "\n".join((tmp_path / f"node{node}.log").read_text() for node in (0, 1))
    assert_same_curve(curve(tmp_path / "run"), one_process)
    assert "ranks    2: track" in (tmp_path / "node0.log").read_text()
