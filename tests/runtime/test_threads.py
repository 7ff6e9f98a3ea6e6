import os

import pytest

from parallax.runtime.threads import limit_spinning


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_idle_threads_stop_spinning_after_a_moment() -> None:
    limit_spinning()
    assert 0 < int(os.environ.pop("GOMP_SPINCOUNT")) < 10**6


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_a_setting_of_the_users_wins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "active")
    limit_spinning()
    assert os.environ[name] == "active"
    assert not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} - {name} & os.environ.keys()
