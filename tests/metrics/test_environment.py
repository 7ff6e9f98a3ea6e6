import subprocess

import pytest
import torch

from parallax.metrics.environment import environment_tags, git_state

IDENTITY = ["-c", "user.name=A", "-c", "user.email=a@example.org"]


def git(folder, *arguments):
    return subprocess.run(
        ["git", "-C", folder, *IDENTITY, *arguments], check=True, capture_output=True, text=True, timeout=20
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--initial-branch", "trunk")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_repository_is_named_by_commit_and_branch(repository):
    state = git_state(repository)
    assert (state.commit, state.branch, state.dirty) == (git(repository, "rev-parse", "HEAD"), "trunk", False)


def test_a_changed_tracked_file_makes_it_dirty_and_a_new_one_does_not(repository):
    (repository / "notes.txt").write_text("new")
    assert not git_state(repository).dirty
    (repository / "code.py").write_text("x = 2\n")
    assert git_state(repository).dirty


def test_a_detached_head_is_said(repository):
    git(repository, "checkout", "--detach")
    assert git_state(repository).branch == "(detached)"


def test_a_folder_that_the_repository_around_it_does_not_track_has_no_state(repository):
    inside = repository / ".venv"
    inside.mkdir()
    (inside / "module.py").write_text("")
    assert git_state(inside) is None


def test_there_is_no_state_without_repository_commit_or_git(tmp_path, monkeypatch):
    assert git_state(tmp_path) is None
    git(tmp_path, "init")
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def test_a_git_that_hangs_is_given_up(repository, monkeypatch):
    slow = repository / "git"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(repository), prepend=":")
    monkeypatch.setattr("parallax.metrics.environment._GIT_TIMEOUT_SECONDS", 0.2)
    assert git_state(repository) is None


def test_tags_are_flat_texts_and_name_the_versions():
    tags = environment_tags(torch.device("cpu"))
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in tags.items())
    assert tags["torch"] == torch.__version__
    assert tags["device"] == "cpu"
    assert {"host", "python", "command", "parallax"} <= set(tags)


def test_tags_do_without_git_and_without_a_user_name(monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("parallax.metrics.environment.git_state", lambda folder: None)
    tags = environment_tags(torch.device("cpu"))
    assert "user" not in tags
    assert not any(key.startswith("git.") for key in tags)
