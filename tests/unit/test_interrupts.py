"""Signals: what they interrupt, what they wait for, and a main thread that cannot be interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli.signals import stop_at_signals
from orchestrator.interrupts import deferred, stopped_by_signals
from orchestrator.processes import boot_id, is_alive, started_ticks


def come() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_deferred_signal_is_raised_behind_the_outermost_block() -> None:
    reached = []

    def work() -> None:
        with deferred():
            with deferred():
                come()
                reached.append("inner")
            reached.append("outer")
        reached.append("behind")

    with pytest.raises(KeyboardInterrupt), stop_at_signals():
        work()
    assert reached == ["inner", "outer"]
    with deferred():  # nothing of it is left
        pass


def test_a_signal_is_not_lost_where_the_block_fails() -> None:
    def fail() -> None:
        come()
        raise ValueError

    with pytest.raises(KeyboardInterrupt) as raised, stop_at_signals(), deferred():
        fail()
    assert isinstance(raised.value.__context__, ValueError)


def test_a_dead_terminal_does_not_change_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(_descriptor: int, _data: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", dead)
    with pytest.raises(KeyboardInterrupt), stop_at_signals():
        os.kill(os.getpid(), signal.SIGHUP)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_at_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


_ENDS = """
import sys, time
from orchestrator.cli.signals import stop_at_signals
try:
    with stop_at_signals():
        print("begun", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.2)  # it tells what to type next
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signals_that_come_until_the_very_end_change_no_exit_code(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            process.send_signal(number)
            time.sleep(0.001)
        process.kill()
    assert process.returncode == 130


def test_a_handler_that_runs_needs_no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.interrupts.PATIENCE_SECONDS", 0.1)
    unstuck: list[bool] = []

    def take_time_to_end() -> None:
        try:
            come()
        finally:
            time.sleep(0.3)

    with pytest.raises(KeyboardInterrupt), stopped_by_signals(lambda: None, lambda: unstuck.append(True)):
        take_time_to_end()
    assert unstuck == []
    assert signal.set_wakeup_fd(-1) == -1


# The main thread waits in C for a mutex, which no signal ends, until "QEMU" has ended: as in a call
# of libvirt to a monitor that does not answer.
_STUCK = """
import ctypes, subprocess, sys, threading
from pathlib import Path
from orchestrator import interrupts
from orchestrator.cli.signals import stop_at_signals
from orchestrator.host.runtime import runtime_folder
interrupts.PATIENCE_SECONDS = 0.5
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
with stop_at_signals("now"), runtime_folder(Path("r")) as folder:
    qemu = subprocess.Popen(
        [sys.argv[1], "-c", "trap '' TERM; for n in $(seq 300); do sleep 0.1; done", f"{folder}/v/socket"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    def wait():
        print("ended by", qemu.wait(), flush=True)
        libc.pthread_mutex_unlock(mutex)
    threading.Thread(target=wait, daemon=True).start()
    print(folder, flush=True)
    libc.pthread_mutex_lock(mutex)
    print("not interrupted", flush=True)
"""


@pytest.mark.slow
def test_a_main_thread_that_waits_for_a_hung_qemu_is_freed(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu-system-x"
    shutil.copy("/bin/sh", qemu)
    environment = {**os.environ, "ORCHESTRATOR_RUNTIME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", _STUCK, qemu],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout
            folder = Path(child.stdout.readline().strip())
            time.sleep(0.3)  # until it waits
            child.send_signal(signal.SIGTERM)
            out, err = child.communicate(timeout=20)
        finally:
            child.kill()
    assert out == "ended by -9\n"
    assert err.startswith("\nstopping: now\n")
    assert "KeyboardInterrupt" in err
    assert not folder.exists()


def test_a_process_is_known_by_its_start_and_boot() -> None:
    began = started_ticks(os.getpid())
    assert began is not None
    assert is_alive(os.getpid(), began, boot_id())
    assert not is_alive(os.getpid(), began - 1, boot_id())
    assert not is_alive(os.getpid(), began, "another")
    assert started_ticks((1 << 22) + 1) is None


def test_a_name_with_parentheses_and_a_zombie(tmp_path: Path) -> None:
    program = tmp_path / "a) S (1 2"
    shutil.copy("/bin/sh", program)
    with subprocess.Popen([program, "-c", "read x"], stdin=subprocess.PIPE) as child:
        mine = started_ticks(os.getpid())
        began = started_ticks(child.pid)
        assert mine is not None
        assert began is not None
        assert mine <= began
        assert child.stdin
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert started_ticks(child.pid) is None, "a zombie has ended"
