"""What a run starts as root keeps few of root's privileges (docs/security.md)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from driver import Orchestrator, end, wait_for_line

from orchestrator.privileges import NOT_NEEDED

# The guest of test_resume.py: both start from one saved state.
SCENARIO = """\
version: 1
name: privileges
guest: debian-13
machine: {memory: 512MiB, vcpus: 1}
arms: {plain: }
steps:
  - wait: {time: 60s}
"""
DAC_OVERRIDE, SETGID, SETUID = 1, 6, 7
NO_NEW_PRIVS, FILTER = "1", "2"


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.skipif(os.geteuid() != 0, reason="what an ordinary user starts has no capability to drop")
def test_qemu_and_passt_have_what_they_need(orchestrator: Orchestrator, tmp_path: Path) -> None:
    path, log = tmp_path / "privileges.yaml", tmp_path / "log"
    path.write_text(SCENARIO)
    running = orchestrator.start(path, log)
    try:
        wait_for_line(log, "step 1 of 1: wait", 400)
        (qemu,), (passt,) = orchestrator.processes("qemu-system"), orchestrator.processes("passt")
        of_qemu, of_passt, ours = status(qemu), status(passt), status(running.pid)
    finally:
        code = end(running, signal.SIGTERM)
    assert code == 130
    kept = f"{1 << DAC_OVERRIDE | 1 << SETGID | 1 << SETUID:016x}"
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert of_qemu[name] == kept, f"QEMU's {name}"
    for process in (of_qemu, of_passt):
        assert (process["NoNewPrivs"], process["Seccomp"]) == (NO_NEW_PRIVS, FILTER)
    for name in ("CapEff", "CapPrm"):
        assert int(of_passt[name], 16) == 0, f"passt's {name}"
    assert "0" not in of_passt["Uid"].split()
    assert ours["CapEff"] != kept, "pagemap and memory of QEMU need more"
    given_up = sum(1 << number for number in NOT_NEEDED.values())
    assert int(ours["CapBnd"], 16) & given_up == 0
