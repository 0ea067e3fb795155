"""Daemons of libvirt are reaped by us, and nothing else is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Adopts orphans, or is a parent that never reaps; lets the program argv[1] become a daemon as libvirt does it
# (a child that begins a session, and ends once a grandchild was started), kills that, and tells whether its
# pid is gone within argv[3] seconds.
_DAEMON = """
import ctypes, os, signal, subprocess, sys
from orchestrator.deadline import Deadline, wait_for
from orchestrator.host.orphans import adopt_orphans, exit_status
if sys.argv[2] == "adopt":
    adopt_orphans()
else:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
code = "import subprocess as s, sys; print(s.Popen([sys.argv[1], '60'], stdout=s.DEVNULL).pid)"
argv = [sys.executable, "-c", code, sys.argv[1]]
pid = int(subprocess.run(argv, stdout=subprocess.PIPE, start_new_session=True, check=True).stdout)
os.kill(pid, signal.SIGKILL)
def look():
    return None if os.path.exists(f"/proc/{pid}") else "gone"
print(wait_for(look, Deadline(float(sys.argv[3])), every=0.01) or "there", exit_status(pid))
"""

# Starts the program argv[1] itself, and is slower to ask for its exit code than any reaper.
_CHILD = """
import subprocess, sys, time
from orchestrator.host.orphans import adopt_orphans
adopt_orphans()
child = subprocess.Popen([sys.argv[1], "-c", "exit 7"])
time.sleep(0.5)
print(child.wait())
"""


def _said(code: str, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=30, check=True
    )
    return ran.stdout.strip()


def _program(folder: Path, of: str, name: str) -> str:
    return str(shutil.copy(of, folder / name))


@pytest.mark.parametrize("name", ["qemu-system-x86_64", "passt.avx2"])
def test_a_daemon_that_ended_leaves_no_zombie(tmp_path: Path, name: str) -> None:
    program = _program(tmp_path, "/bin/sleep", name)
    assert _said(_DAEMON, program, "adopt", "10") == "gone -9", "it was killed"
    assert _said(_DAEMON, program, "leave", "0.5") == "there None"


def test_other_programs_are_left_to_who_waits_for_them(tmp_path: Path) -> None:
    assert _said(_DAEMON, _program(tmp_path, "/bin/sleep", "other"), "adopt", "0.5") == "there None"


def test_a_qemu_of_our_own_keeps_its_exit_code(tmp_path: Path) -> None:
    assert _said(_CHILD, _program(tmp_path, "/bin/sh", "qemu-system-x86_64")) == "7"


# What ended was not looked for yet.
_AT_ONCE = """
import os, signal, subprocess, sys
from orchestrator.host import orphans
orphans._LOOK_SECONDS = 60
orphans.adopt_orphans()
code = "import subprocess as s, sys; print(s.Popen([sys.argv[1], '60'], stdout=s.DEVNULL).pid)"
argv = [sys.executable, "-c", code, sys.argv[1]]
pid = int(subprocess.run(argv, stdout=subprocess.PIPE, start_new_session=True, check=True).stdout)
assert orphans.exit_status(pid) is None
os.kill(pid, signal.SIGKILL)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print(orphans.exit_status(pid))
"""


def test_how_a_daemon_ended_is_known_at_once(tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    shutil.copy(shutil.which("sleep") or "", program)
    said = subprocess.run(
        [sys.executable, "-c", _AT_ONCE, str(program)], capture_output=True, text=True, check=True
    )
    assert said.stdout == "-9\n"
