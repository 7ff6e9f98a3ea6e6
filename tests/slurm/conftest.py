import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.slurm.cluster import Cluster, why_no_cluster
from evaluation.slurm.runs import SlurmRun

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a cluster and takes long."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A sandbox for all tests; without Slurm they are skipped, or fail where PARALLAX_REQUIRE_SLURM=1."""
    reason = why_no_cluster()
    if reason is not None:
        if os.environ.get("PARALLAX_REQUIRE_SLURM") == "1":
            pytest.fail(f"PARALLAX_REQUIRE_SLURM=1, and {reason}")
        pytest.skip(reason)
    # As Ctrl-C does, `timeout` then ends the session and not just the process, and the cluster with it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Cluster() as started:
            yield started
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def idle(cluster: Cluster) -> None:
    """Each test has all nodes to itself."""
    cluster.wait_for_nodes()


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run over two ranks that nothing happened to."""
    run = SlurmRun(tmp_path_factory.mktemp("undisturbed"), cluster)
    ended = cluster.finish(run.submit(), run.log)
    assert ended.state == "COMPLETED", run.log.read_text()
    return run.losses
