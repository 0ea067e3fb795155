"""Files of `reclaim --policy`, and the command that is given one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_reclaim import Host, host, pytestmark
from test_reclaim_policy import TEXT
from test_runtime import typed

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import FileProblemsError
from orchestrator.host.runtime import runtime_base
from orchestrator.levers import LEVERS
from orchestrator.reclaim.policy import load_policy

__all__ = ["host", "pytestmark"]


def policy_file(folder: Path, **changes: object) -> Path:
    """As YAML, which JSON is."""
    path = folder / "policy.yaml"
    text = {**TEXT, "journal": str(folder / "journal.jsonl"), **changes}
    path.write_text(json.dumps({key: value for key, value in text.items() if value is not None}))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lever": "flsh"}, "no lever is called 'flsh'; did you mean"),
        ({"parameters": {"max_growth": "1MiB"}}, "max_growth"),
        ({"lever": "collapse", "parameters": {"max_growth": "lots"}}, "'lots' is not a size"),
        ({"domains": []}, "domains"),
        ({"reclaimable_at_least": None}, "no threshold; give `reclaimable_at_least`"),
        ({"reclaimable_at_least": "1MB"}, "write 1MiB"),
        ({"psi_some_avg10_at_least": 101}, "100"),
        ({"pause": None}, "pause"),
        ({"pause": "0s"}, "pause"),
        ({"journal": "journal"}, "write an absolute path"),
        ({"pauze": "1s"}, "pauze"),
        ({"version": 2}, "version"),
        (
            {"lever": "collapse", "psi_some_avg10_at_least": 20},
            "collapse refuses where more than 10 % are stalled (most_stalled)",
        ),
    ],
)
def test_faults_of_a_policy(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    path = policy_file(tmp_path, **changes)
    with pytest.raises(FileProblemsError) as found:
        load_policy(path)
    assert said in str(found.value)
    assert str(found.value).startswith(f"{path}:1:")


def test_the_sample_is_a_policy() -> None:
    sample = Path(__file__).parents[2] / "docs" / "reclaim" / "policy.yaml"
    policy, lever = load_policy(sample)
    assert policy.covers("web1")
    assert lever == LEVERS[policy.lever].model_validate(policy.parameters)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("flush", "--policy", "FILE"), "--policy and LEVER exclude each other"),
        (("--policy", "FILE", "--domain", "web1"), "--policy and --domain exclude each other"),
        (("--policy", "FILE", "--json"), "--policy and --json exclude each other"),
        (("--policy", "FILE", "--dry-run"), "--policy and --dry-run exclude each other"),
        (("--policy", "FILE", "--watch", "0.1s"), "less than 1s would disturb"),
        (("--policy", "FILE", "--connect", "local"), "'local' has no VMs but our own"),
        (("flush", "--domain", "web1", "--act"), "--act is for --policy"),
        (("flush",), "flush needs --domain"),
        ((), "neither LEVER nor --policy is given"),
        (("--policy", "/no/such/file"), "there is no such file"),
    ],
)
def test_bad_usage(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(policy_file(tmp_path))
    code, _, err = typed(capsys, "reclaim", *(path if word == "FILE" else word for word in words))
    assert code == 2
    assert said in " ".join(err.split())


def test_once_by_the_command_line(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = policy_file(tmp_path)
    code, text, err = typed(capsys, "reclaim", "--policy", str(path))
    assert (code, err) == (0, "")
    assert text.startswith("web1: flush would be used; due: 1.6")
    assert host.flushes == 0
    code, text, err = typed(capsys, "reclaim", "--policy", str(path), "--act")
    assert (code, err, host.flushes) == (0, "", 1)
    assert text.startswith("web1: flush done; due: 1.6")


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A host behind an ssh that fails; `--connect` to it."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text("#!/bin/sh\necho Connection refused >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    return "qemu+ssh://root@node1/system"


def test_one_look_at_a_host_that_is_not_there_has_a_code(
    unreachable: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, err = typed(
        capsys, "reclaim", "--policy", str(policy_file(tmp_path)), "--connect", unreachable
    )
    assert (code, text) == (3, "")
    assert f"{unreachable}: the host cannot be looked at: cannot reach root@node1 by ssh" in err
    assert "Connection refused" in err


@pytest.mark.slow
def test_it_watches_until_it_is_told_to_end(unreachable: str, tmp_path: Path) -> None:
    """And what a host that is not there leaves is removed."""
    argv = [sys.executable, "-m", "orchestrator", "reclaim", "--policy", str(policy_file(tmp_path))]
    argv += ["--connect", unreachable, "--watch", "1s", "--act"]
    ssh = tmp_path / "bin" / "ssh"
    calls = tmp_path / "calls"
    ssh.write_text(ssh.read_text().replace("echo", f"echo >>{calls}\necho", 1))
    # Where libvirt logs is set for a process once, by whichever test was first.
    environment = {name: value for name, value in os.environ.items() if name != "LIBVIRT_LOG_OUTPUTS"}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        many = wait_for(
            lambda: (calls.exists() and len(calls.read_text().splitlines()) >= 3) or None,
            Deadline(60),
            every=0.1,
        )
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert many, err
    assert process.returncode == 130
    assert "putting the host back as it was" in err
    (notice,) = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert json.loads(notice)["host"] == unreachable
    assert not runtime_base().exists() or not list(runtime_base().iterdir())


def test_the_names_of_vms_are_those_of_libvirt(tmp_path: Path) -> None:
    """Of its test driver, which has one."""
    from orchestrator.host.libvirt_host import open_host

    with open_host("test:///default", tmp_path, tmp_path) as opened:
        assert opened.running_names() == ["test"]
