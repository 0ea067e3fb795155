"""A signal reaches the process that it is meant for, or none."""

from __future__ import annotations

import ast
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.deadline import Deadline, wait_for
from orchestrator.processes import kill_group, send_signal, started_ticks

PACKAGE = Path(__file__).parents[2] / "orchestrator"
# What takes a process id. Popen's own methods do not: a child that was not waited for keeps its id.
_BY_PID = {"os.kill", "os.killpg", "signal.pidfd_send_signal", "os.pidfd_open", "psutil.Process"}


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def test_the_process_that_is_meant_is_signalled(child: subprocess.Popen[bytes]) -> None:
    began = started_ticks(child.pid)
    assert began is not None
    assert send_signal(child.pid, began, signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM
    assert not send_signal(child.pid, began, signal.SIGTERM), "it has gone"


def test_a_pid_that_was_given_to_another_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    began = started_ticks(child.pid)
    assert began is not None
    assert not send_signal(child.pid, began - 1, signal.SIGKILL)
    assert child.poll() is None


@pytest.mark.parametrize("pid", [(1 << 22) + 1, 0, -1, 1 << 40])
def test_what_is_no_process_is_not_signalled(pid: int) -> None:
    assert not send_signal(pid, 1, signal.SIGKILL), "0 and -1 would be groups"


def test_a_group_goes_with_its_leader() -> None:
    argv = ["sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout
        other = int(shell.stdout.readline())
        began = started_ticks(other)
        kill_group(shell)
        assert shell.wait(10) == -signal.SIGKILL
        kill_group(shell)  # its id may be another's now
        assert began is not None
        assert wait_for(lambda: started_ticks(other) != began or None, Deadline(10), every=0.01)


def test_one_that_leads_no_group_is_not_taken_for_a_leader() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(ValueError, match="leads no process group"):
            kill_group(process)
        assert process.poll() is None
        process.kill()


def calls(source: str) -> set[str]:
    """What is called with arguments: `psutil.Process()` is this process."""
    found = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args)
    return {ast.unparse(name) for name in found}


def test_nothing_else_signals_by_a_pid() -> None:
    assert "os.kill" in calls("import os\nos.kill(1, 2)")
    there = {path.relative_to(PACKAGE).as_posix(): calls(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert there.pop("processes.py") & _BY_PID == {"os.killpg", "os.pidfd_open", "signal.pidfd_send_signal"}
    # For process_madvise(2), which it takes; no signal.
    assert there.pop("host/collapse.py") & _BY_PID == {"os.pidfd_open"}
    assert {name: found & _BY_PID for name, found in there.items() if found & _BY_PID} == {}
