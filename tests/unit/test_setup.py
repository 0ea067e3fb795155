"""Setting a guest up: only its own key is believed, and a task that fails is named."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible_runner
import pytest
from ruamel.yaml import YAML

from orchestrator.errors import InfrastructureError
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.setup import apply_playbook
from orchestrator.scenario.model import Setup

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"

Apply = Callable[[], None]


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    shell: Any = SimpleNamespace(port=40022, known_hosts=tmp_path / "known_hosts")
    keys = SshKeys(client=tmp_path / "client", host=tmp_path / "host")
    return lambda: apply_playbook(
        PLAYBOOKS / "guest.yaml", {"thp": "never"}, shell, keys, tmp_path / "scratch", check=lambda: None
    )


def runner(
    monkeypatch: pytest.MonkeyPatch, status: str, events: tuple[dict[str, Any], ...] = (), stdout: str = ""
) -> dict[str, Any]:
    """Put a stand-in for ansible_runner.run in place; returns what it was called with."""
    called: dict[str, Any] = {}

    def run(**options: Any) -> SimpleNamespace:
        called.update(options, thread=threading.current_thread())
        for event in events:
            assert options["event_handler"](event) is False, "no copy of an event on disk"
        return SimpleNamespace(status=status, stdout=io.StringIO(stdout))

    monkeypatch.setattr(ansible_runner, "run", run)
    return called


def test_only_the_guests_own_key_is_believed(
    apply: Apply, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = runner(monkeypatch, "successful")
    apply()
    host = called["inventory"]["all"]["hosts"]["guest"]
    options = host["ansible_ssh_common_args"]
    assert "StrictHostKeyChecking=yes" in options
    assert f"UserKnownHostsFile={tmp_path / 'known_hosts'}" in options
    assert "-F /dev/null" in options
    assert "IdentityAgent=none" in options
    assert called["envvars"]["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert (host["ansible_host"], host["ansible_port"]) == ("127.0.0.1", 40022)
    assert called["extravars"] == {"thp": {"__ansible_unsafe": "never"}}
    assert called["thread"] is not threading.main_thread(), "it would take our signal handlers"


def test_a_failed_task_is_named(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {
        "event": "runner_on_failed",
        "event_data": {"task": "Set memory policies", "res": {"msg": "write error"}},
    }
    fine = {"event": "runner_on_ok", "event_data": {"task": "Configure Redis", "res": {"msg": "fine"}}}
    runner(monkeypatch, "failed", (fine, failed))
    with pytest.raises(InfrastructureError, match=r"guest\.yaml: failed") as error:
        apply()
    assert error.value.details == "Set memory policies: write error"


def test_without_a_task_its_output_tells(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    runner(monkeypatch, "timeout", stdout="x" * 5000 + "the end")
    with pytest.raises(InfrastructureError, match="timeout") as error:
        apply()
    assert error.value.details.endswith("the end")
def test_a_failed_command_is_told_by_what_it_said(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"msg": "non-zero return code", "stderr": "no such sysctl"}
    runner(
        monkeypatch,
        "failed",
        ({"event": "runner_on_failed", "event_data": {"task": "Set it", "res": said}},),
    )
    with pytest.raises(InfrastructureError) as error:
        apply()
    assert error.value.details == "Set it: no such sysctl"


    assert len(error.value.details) <= 2000


def test_a_runner_that_does_not_start_is_told(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**_: object) -> None:
        raise OSError("no ansible-playbook here")

    monkeypatch.setattr(ansible_runner, "run", run)
    with pytest.raises(InfrastructureError, match="did not start") as error:
        apply()
    assert "no ansible-playbook here" in error.value.details


def test_the_playbook_is_given_every_variable_that_it_uses() -> None:
    text = (PLAYBOOKS / "guest.yaml").read_text()
    (play,) = YAML(typ="safe").load(text)
    assert all(task["name"] for task in play["tasks"])
    used = set(re.findall(r"{{\s*(\w+)", text)) | set(re.findall(r"{% (?:if|for .* in) (\w+)", text))
    local = set(re.findall(r"{% for (\w+), (\w+) in", text)[0])
    assert used - local == {"programs_dir", *Setup.model_fields}
