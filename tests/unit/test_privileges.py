"""What the program, started as root, gives up: in all that it is and starts, once, and else nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from orchestrator.privileges import NOT_NEEDED

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has none to give up")

_CODE = """
import os, subprocess, threading
from orchestrator.privileges import give_up_privileges

os.write(2, b"begun ")
threading.Thread(target=threading.Event().wait, daemon=True).start()
give_up_privileges()
print(open("/proc/self/status").read())
print(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
"""
_ALL = sum(1 << number for number in NOT_NEEDED.values())


def held(*words: str, before: tuple[str, ...] = ()) -> tuple[list[int], int]:
    """Of the process and of one that it starts: which of them it has or could get; and how often it began."""
    argv = [*before, sys.executable, "-c", _CODE, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    lines = [line.split(":\t") for line in done.stdout.splitlines()]
    sets = [int(value, 16) & _ALL for name, *rest in lines for value in rest if name in {"CapPrm", "CapBnd"}]
    assert len(sets) == 4
    return sets, done.stderr.count("begun")


def test_root_gives_up_what_is_not_needed() -> None:
    assert held("run", "quickstart") == ([0, 0, 0, 0], 2)


def test_who_has_none_of_them_is_not_started_anew() -> None:
    none = ",".join(f"-{name}" for name in NOT_NEEDED if name != "checkpoint_restore")
    last = f"-cap_{NOT_NEEDED['checkpoint_restore']}"
    assert held("run", before=("setpriv", "--bounding-set", f"{none},{last}", "--")) == ([0, 0, 0, 0], 1)


@pytest.mark.parametrize(
    ("words", "before"),
    [
        pytest.param(("doctor", "--fix"), (), id="who installs packages"),
        pytest.param(("run",), ("setpriv", "--bounding-set", "-setpcap", "--"), id="who may not change it"),
    ],
)
def test_others_keep_them(words: tuple[str, ...], before: tuple[str, ...]) -> None:
    sets, begun = held(*words, before=before)
    assert (all(sets), begun) == (True, 1)
