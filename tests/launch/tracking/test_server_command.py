"""`make mlflow`: a private PostgreSQL cluster, MLflow over it, and an orderly end of both."""

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from launch.machine import free_port
from launch.tracking.__main__ import main
from launch.tracking.postgres import Postgres


def count(database: Postgres) -> int:
    """Rows of a table that grows by one with each call."""
    import psycopg

    connection = psycopg.connect(database.uri)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS seen (at timestamptz DEFAULT now())")
        cursor.execute("INSERT INTO seen DEFAULT VALUES")
        cursor.execute("SELECT count(*) FROM seen")
        [number] = cursor.fetchone()
    connection.close()
    return int(number)


@pytest.mark.slow
@pytest.mark.usefixtures("postgres")
def test_a_cluster_is_made_once_and_survives_stops_kills_and_callers_that_die(servers_folder: Path) -> None:
    first = Postgres(servers_folder / "pg")
    first.start()
    assert count(first) == 1
    first.stop()
    second = Postgres(servers_folder / "pg")
    second.start()
    assert count(second) == 2
    second.kill()
    second.start()
    assert count(second) == 3
    third = Postgres(servers_folder / "pg")  # `second` never stopped, as if its caller had been killed
    third.start()
    assert second.has_ended
    assert count(third) == 4
    third.stop()
    assert not (servers_folder / "pg" / "data" / "postmaster.pid").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_orderly(
    number: signal.Signals, servers_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "launch.tracking",
        "--port",
        str(port),
        "--folder",
        str(servers_folder / "server"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            if number == signal.SIGTERM:  # the other one comes while it still starts
                said = [serving.stdout.readline() for _ in range(2)]
                assert f"MLFLOW_TRACKING_URI=http://127.0.0.1:{port}" in said[1]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                    assert answer.read() == b"OK"
                assert main(["--folder", str(servers_folder / "server")]) == 2
                assert "another server runs here" in capfd.readouterr().err
            else:
                serving.stdout.readline()
            serving.send_signal(number)
            assert serving.wait(timeout=60) == 0
        finally:
            serving.kill()
    assert not (servers_folder / "server" / "postgres" / "data" / "postmaster.pid").exists()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10)


def test_a_machine_without_postgresql_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launch.tracking.postgres._INSTALLED", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--folder", str(tmp_path / "server")]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "apt-get install -y postgresql" in said


def test_a_path_too_long_for_a_socket_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], postgres: None
) -> None:
    assert main(["--folder", str(tmp_path / ("x" * 90))]) == 2
    assert "too long for a Unix socket" in capfd.readouterr().err
