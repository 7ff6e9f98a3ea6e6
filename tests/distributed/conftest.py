from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_pool import WorkerPool

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts processes: `make check` leaves it to `make test`."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


PoolOf = Callable[[int], WorkerPool]


@pytest.fixture(scope="session")
def pool_of() -> Iterator[PoolOf]:
    """A function from the number of ranks to the pool that has them; it starts one where there is none."""
    pools: dict[int, WorkerPool] = {}

    def pool(world_size: int) -> WorkerPool:
        if world_size not in pools or not pools[world_size].is_alive:
            pools[world_size] = WorkerPool(world_size)
        return pools[world_size]

    yield pool
    for started in pools.values():
        started.close()
