import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from worker_pool import PoolOf, WorkerPool

_HERE = Path(__file__).parent
_COMPILE_SECONDS = 1200.0
_COMPILE = """
import torch
from parallax.parallel.deepspeed.library import import_deepspeed
from parallax.parallel.deepspeed.operators import load_operator
load_operator(import_deepspeed(torch.device("cpu")).ops.op_builder.CPUAdamBuilder())
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts processes: `make check` leaves it to `make test`."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if item.get_closest_marker("deepspeed") and find_spec("deepspeed") is None:
                item.add_marker(pytest.mark.skip(reason="DeepSpeed is not installed; make setup installs it"))


@pytest.fixture(scope="session")
def pool_of() -> Iterator[PoolOf]:
    """A function from the number of ranks to the pool that has them; it starts one where there is none."""
    yield from _pools()


@pytest.fixture(scope="session")
def deepspeed_pool_of(operators: Path) -> Iterator[PoolOf]:
    """The same, of processes that no other test uses: DeepSpeed changes `torch.nn.functional.linear` for good."""
    yield from _pools()


@pytest.fixture(scope="session")
def operators(pytestconfig: pytest.Config) -> Path:
    """Where DeepSpeed's compiled operators are: TORCH_EXTENSIONS_DIR, or a folder kept from session to session."""
    if "TORCH_EXTENSIONS_DIR" not in os.environ:
        # Workers and runs that tests start inherit it.
        os.environ["TORCH_EXTENSIONS_DIR"] = str(pytestconfig.cache.mkdir("torch_extensions"))  # type: ignore[union-attr]
    return Path(os.environ["TORCH_EXTENSIONS_DIR"])


@pytest.fixture(scope="session")
def host_adam(operators: Path, pytestconfig: pytest.Config) -> Path:
    """The folder of the compiled Adam; what that needs is shown, for it takes minutes the first time."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():  # type: ignore[union-attr]
        subprocess.run([sys.executable, "-c", _COMPILE], check=True, timeout=_COMPILE_SECONDS)
    return operators / "cpu_adam"


def _pools() -> Iterator[PoolOf]:
    pools: dict[int, WorkerPool] = {}

    def pool(world_size: int) -> WorkerPool:
        if world_size not in pools or not pools[world_size].is_alive:
            pools[world_size] = WorkerPool(world_size)
        return pools[world_size]

    yield pool
    for started in pools.values():
        started.close()
