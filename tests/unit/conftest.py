"""Fixtures of several test modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import played
import pytest

from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget

# As ssh does: the words behind the host are given to a shell.
_HERE = """#!/bin/sh
while [ "$1" != root@there ]; do shift; done
shift
exec sh -c "$*"
"""


@pytest.fixture
def target(tmp_path: Path) -> SshTarget:
    script = tmp_path / "ssh"
    script.write_text(_HERE)
    script.chmod(0o755)
    return SshTarget(script, "there", 22, "root")


@pytest.fixture(params=["here", "there"])
def shell(request: pytest.FixtureRequest, target: SshTarget) -> Iterator[HostShell]:
    """This machine, directly and by a reader that was sent."""
    if request.param == "here":
        yield HostShell()
        return
    with remote_shell(target) as remote:
        yield remote


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> played.Trials:
    return played.play(monkeypatch)
