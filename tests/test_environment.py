"""Provenance says enough to explain a result, and nothing that is secret."""

import subprocess

import pytest

from bakeoff.environment import command_line, cores, environment, git_state, scrub


@pytest.mark.parametrize(
    "secret",
    [
        "--set judge.api_key=hunter2",
        "--set judge.settings.API-KEY=hunter2",
        "--api-key hunter2",
        "--token=hunter2",
        "--set access_token=hunter2,seeds=3",
        "https://user:hunter2@host/model",
    ],
)
def test_secrets_are_scrubbed_by_name(secret):
    """The value of what is called a key, a token or a password does not reach the disk."""
    said = command_line(["/usr/bin/bakeoff", "run", "quickstart", *secret.split(" ")])
    assert "hunter2" not in said
    assert "***" in said


@pytest.mark.parametrize("value", ["hf_abcdefghijklmnopqrst", "sk-proj-abcdefghijklmnopqrst", "ghp_abcdefghijklmnop"])
def test_secrets_are_scrubbed_by_form(value):
    """A value in the form of a well-known key is scrubbed whatever its name."""
    assert value not in scrub(f"model={value}")


def test_what_is_no_secret_stays():
    """Settings about tokens, and hub ids, are not secrets; the command can be typed again."""
    words = ["run", "my matrix.yaml", "--set", "tasks.0.max_new_tokens=64", "--only", "algorithm=ppo"]
    assert command_line(["/x/bakeoff", *words]) == (
        "bakeoff run 'my matrix.yaml' --set tasks.0.max_new_tokens=64 --only algorithm=ppo"
    )


def test_git_state_knows_commit_and_dirt(tmp_path, monkeypatch):
    """Commit and whether there are uncommitted changes; None outside of a repository."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    clean = git_state(tmp_path)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "new.txt").touch()
    assert git_state(tmp_path) == clean | {"dirty": True}


def test_environment_is_complete():
    """What environment.json needs is there, with plausible values."""
    told = environment()
    assert set(told) == {"python", "platform", "cpu", "threads", "memory_bytes", "gpu", "packages", "git", "command"}
    assert told["packages"]["bakeoff"]
    assert told["threads"] == cores() >= 1
    assert told["memory_bytes"] > 2**20
