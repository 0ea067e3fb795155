"""Why a guest was lost: each cause finds itself, by what is left to see, and no other's."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import Answer, FakeDomain, FakeShell

from orchestrator.errors import CommandError, CommandTimeoutError, GuestError, GuestLostError, GuestPanicError
from orchestrator.guest import boot
from orchestrator.guest.boot import Guest
from orchestrator.guest.causes import BOOT_ID, CAUSES, Seen, panic
from orchestrator.guest.console import FLOOD_BYTES, Console
from orchestrator.host.domain import MonitorEvent
from orchestrator.host.shell import HostShell

PANIC = "[    9.1] Kernel panic - not syncing: sysrq triggered crash\n"
MET = "the guest closed the ssh connection"
QEMU, PASST = 71, 72
CGROUP = "/sys/fs/cgroup/memory/vms/memory.oom_control"
OOM = (
    "Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:3737968kB, anon-rss:524288kB, "
    "file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:1500kB oom_score_adj:0"
)


class Machine:
    """The host of a guest: its processes' states, its files, its kernel's log."""

    def __init__(self) -> None:
        self.states = {QEMU: "S", PASST: "S"}
        self.files = {f"/proc/{QEMU}/cgroup": "4:memory:/vms\n", CGROUP: "oom_kill_disable 0\noom_kill 3\n"}
        self.log: list[str] = []

    def call(self, name: str, *words: Any, **_: object) -> object:
        if name == "kernel_log":
            return self.log
        if name == "run":
            return {"code": 0, "out": "Avail\n4096\n", "err": ""}
        assert name == "texts"
        there = {f"/proc/{pid}/stat": f"{pid} (a (b) c) {state} 1 1" for pid, state in self.states.items()}
        there |= self.files
        return {path: there[path] for path in words[0] if path in there}


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture(autouse=True)
def _nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "LATE_SECONDS", 0.01)
    monkeypatch.setattr(panic, "RESET_SECONDS", 0.01)


@pytest.fixture
def guest(machine: Machine, tmp_path: Path) -> Guest:
    """One that is well, and whose connection has just ended."""
    domain = FakeDomain(pid=QEMU, shell=HostShell(machine.call), passt_pid=PASST)
    shell = FakeShell({"true": "", "dmesg": "", "ps": "S    guest-probe sample 1000\n"})
    shell.again = ("0f\n", "")
    parts: Any = (domain, shell, Console(tmp_path / "console.log"), None, None, Seen(boot_id="0f"))
    made = Guest(*parts)
    made.seen.look(made.domain)
    return made


def lost(guest: Guest, brief: str = MET, details: str = "") -> GuestError:
    """What is reported of it."""
    with pytest.raises(GuestError) as reported, guest.telling():
        raise GuestLostError(brief, details=details)
    return reported.value


def of(guest: Guest) -> FakeDomain:
    domain: Any = guest.domain
    assert isinstance(domain, FakeDomain)
    return domain


def ended(guest: Guest, status: int | None = None, data: Mapping[str, object] | None = None) -> None:
    of(guest).running, of(guest).status = False, status
    if data:
        of(guest).events_of_monitor.append(MonitorEvent("SHUTDOWN", data))


def test_a_guest_that_is_well_has_nothing_reported_of_it(guest: Guest) -> None:
    guest.must_live()


@pytest.mark.parametrize(
    ("status", "said", "brief"),
    [
        (None, {"guest": True, "reason": "guest-reset"}, "the guest reset itself"),
        (0, {"guest": True, "reason": "guest-shutdown"}, "the guest powered itself off"),
        (0, {"guest": False, "reason": "host-signal"}, "QEMU was ended by a signal"),
        (0, {"guest": False, "reason": "of-2030"}, "QEMU ended: of-2030"),
        (-signal.SIGKILL, {}, "QEMU was killed by SIGKILL"),
        (-signal.SIGSEGV, {}, "QEMU was killed by SIGSEGV"),
        (-77, {}, "QEMU was killed by signal 77"),
        (1, {}, "QEMU ended with exit status 1"),
        (None, {}, "the guest stopped running"),
    ],
)
def test_how_qemu_ended(guest: Guest, status: int | None, said: Mapping[str, object], brief: str) -> None:
    ended(guest, status, said)
    of(guest).ended = "qemu: its last words"
    error = lost(guest)
    assert (error.brief, error.outcome) == (brief, "lost")
    assert "its last words" in error.details
    assert MET in error.details, "what was seen first is kept"


def test_a_guest_that_resets_is_lost_before_libvirt_has_ended_it(guest: Guest) -> None:
    of(guest).events_of_monitor.append(MonitorEvent("SHUTDOWN", {"guest": True, "reason": "guest-reset"}))
    assert of(guest).running
    with pytest.raises(GuestLostError, match="reset itself"):
        guest.must_live()


def test_qemu_that_the_oom_killer_ended(guest: Guest, machine: Machine) -> None:
    machine.log = [OOM.format(pid=70, comm="qemu-system-x86"), OOM.format(pid=QEMU, comm="qemu-system-x86")]
    ended(guest, -signal.SIGKILL)
    error = lost(guest)
    assert error.brief == (
        "the host's OOM killer ended QEMU, with 512 MiB of anonymous memory: its cgroup's memory had run out"
    )
    assert "memory.max" in error.hint


def test_the_oom_killer_is_seen_by_its_count_where_its_log_is_not(guest: Guest, machine: Machine) -> None:
    ended(guest, -signal.SIGKILL)
    assert lost(guest).brief == "QEMU was killed by SIGKILL", "it killed no process since the start"
    machine.files[CGROUP] = "oom_kill 4\n"
    del machine.files[f"/proc/{QEMU}/cgroup"], machine.states[QEMU]
    assert "the OOM killer ended a process in its memory cgroup /vms" in lost(guest).brief


def test_another_qemu_that_the_oom_killer_ended_is_not_this_one(guest: Guest, machine: Machine) -> None:
    machine.log = [OOM.format(pid=70, comm="qemu-system-x86")]
    ended(guest, -signal.SIGKILL)
    assert lost(guest).brief == "QEMU was killed by SIGKILL"
    machine.files[CGROUP] = "oom_kill 4\n"
    assert lost(guest).brief.startswith("the host's OOM killer ended QEMU, with 512 MiB"), (
        "in a pid namespace"
    )


def test_what_qemu_says_first_is_the_reason(guest: Guest) -> None:
    """libvirt ends the QEMU of a guest that reset."""
    ended(guest, 0, {"guest": True, "reason": "guest-reset"})
    of(guest).events_of_monitor.append(MonitorEvent("SHUTDOWN", {"reason": "host-signal"}))
    assert lost(guest).brief == "the guest reset itself"


def test_others_that_the_oom_killer_ended_say_nothing_of_qemu(guest: Guest, machine: Machine) -> None:
    machine.log = [OOM.format(pid=5, comm="firefox")]
    ended(guest, 1)
    assert lost(guest).brief == "QEMU ended with exit status 1"


@pytest.mark.parametrize(
    ("data", "brief", "hint"),
    [
        (
            {"operation": "write", "nospace": True, "reason": "No space left on device"},
            "QEMU paused the guest: no space for its disk in /full, 4 KiB free",
            "df -h /full",
        ),
        (
            {"operation": "read", "nospace": False, "reason": "Input/output error\x1b[2J"},
            "QEMU paused the guest, for its disk failed: read of /full/disk.qcow2: Input/output error",
            "check /full",
        ),
    ],
)
def test_a_disk_that_fails_names_its_folder(
    guest: Guest, data: dict[str, object], brief: str, hint: str
) -> None:
    of(guest).paused = "io-error"
    of(guest).events_of_monitor.append(MonitorEvent("BLOCK_IO_ERROR", data))
    with pytest.raises(GuestLostError) as error:
        guest.must_live()
    assert error.value.brief.startswith(brief)
    assert "\x1b" not in error.value.brief
    assert hint in error.value.hint


def test_a_guest_that_qemu_paused_for_anything_else(guest: Guest) -> None:
    of(guest).paused, of(guest).ended = "watchdog", "said qemu"
    error = lost(guest)
    assert error.brief == "QEMU paused the guest: watchdog"
    assert "said qemu" in error.details


def test_qemu_that_a_signal_stopped(guest: Guest, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.states[QEMU] = "T"
    error = lost(guest)
    assert (error.brief, error.hint) == (
        "a signal has stopped QEMU (SIGSTOP)",
        f"let it go on: kill -CONT {QEMU}",
    )
    # and that had stopped it, of which nothing is left to see
    seconds = iter([100.0, 110.0, 122.0, 123.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    for state in ("T", "T", "T", "S"):
        machine.states[QEMU] = state
        guest.seen.look(guest.domain)
    monkeypatch.undo()
    with pytest.raises(GuestLostError, match=r"had stopped QEMU \(SIGSTOP\), for 22 s or more"):
        guest.must_live()


def test_a_debugger_that_stops_qemu_for_a_moment_is_no_signal(guest: Guest, machine: Machine) -> None:
    machine.states[QEMU] = "t"
    guest.must_live()


def test_passt_that_ended(guest: Guest) -> None:
    of(guest).events_of_monitor.append(MonitorEvent("NETDEV_STREAM_DISCONNECTED", {"netdev-id": "hostnet0"}))
    guest.must_live()
    assert lost(guest).brief == "passt, which connects the guest to the network, ended"


def test_passt_that_a_signal_stopped(guest: Guest, machine: Machine) -> None:
    machine.states[PASST] = "T"
    error = lost(guest, "the guest sent no sample for 90 s")
    assert error.brief.startswith("a signal has stopped passt")
    assert error.hint.endswith(str(PASST))


def sampler(guest: Guest, answers: dict[str, Answer | list[Answer]]) -> None:
    shell = FakeShell(answers)
    shell.stands, shell.again = True, ("0f\n", "")
    object.__setattr__(guest, "shell", shell)


def test_a_sampler_that_was_killed(guest: Guest) -> None:
    sampler(guest, {"dmesg": ""})
    guest.seen.sampler_ended = True
    assert lost(guest).brief == "the sampler in the guest (guest-probe) ended though the guest answers"
    sampler(guest, {"dmesg": OOM.format(pid=5, comm="guest-probe").replace("Memory cgroup out", "Out")})
    assert "the OOM killer ended guest-probe, with " in lost(guest).brief


def test_a_sampler_that_is_stopped(guest: Guest) -> None:
    listed = "Ss   /usr/local/bin/guest-probe snapshot\nT    /usr/local/bin/guest-probe sample 1000 /proc/a\n"
    sampler(guest, {"ps": listed})
    assert lost(guest, "the guest sent no sample for 90 s").brief == (
        "a signal has stopped the sampler in the guest (guest-probe)"
    )
    sampler(guest, {"ps": listed.replace("T ", "S ")})
    met = "the guest sent no sample for 90 s"
    assert lost(guest, met).brief == met, "no cause found itself"


def test_a_connection_that_ended_of_itself(guest: Guest) -> None:
    error = lost(guest)
    assert error.brief == "the ssh connection to the guest ended, though the guest answers on a new one"
    assert "Connection reset by peer. passt resets a connection" in error.details


def test_a_guest_whose_sshd_is_gone(guest: Guest) -> None:
    guest.shell.again = ("", "Error reading SSH protocol banner")  # type: ignore[attr-defined]  # a fake
    error = lost(guest)
    assert error.brief.startswith("the guest does not answer on ssh any more, though QEMU and passt run")
    assert "protocol banner" in error.details


def test_a_guest_that_booted_another_kernel(guest: Guest) -> None:
    guest.shell.again = ("1e\n", "")  # type: ignore[attr-defined]  # a fake
    error = lost(guest)
    assert error.brief.startswith("the guest booted another kernel")
    assert BOOT_ID.endswith("boot_id")


def test_a_command_that_does_not_end_may_be_a_guest_that_is_lost(guest: Guest, machine: Machine) -> None:
    slow = CommandTimeoutError("in the guest, 'x' did not finish")
    sampler(guest, {"ps": ""})
    with pytest.raises(CommandTimeoutError) as reported, guest.telling():
        raise slow
    assert reported.value is slow, "there is no more to say"
    machine.states[PASST] = "T"
    with pytest.raises(GuestLostError, match="stopped passt"), guest.telling():
        raise slow


def test_a_command_that_failed_is_no_guest_that_is_lost(guest: Guest) -> None:
    with pytest.raises(CommandError, match="ended with code 1"), guest.telling():
        raise CommandError("in the guest, 'x' ended with code 1")


def printed(guest: Guest, text: str) -> None:
    with guest.console.path.open("a") as console:
        console.write(text)


def test_a_text_that_looks_like_a_panic_is_none(guest: Guest) -> None:
    printed(guest, PANIC)
    guest.must_live()
    guest.must_live()
    asked = guest.shell.commands  # type: ignore[attr-defined]  # a fake
    assert asked == [["true"]], "asked once"
    printed(guest, "more\n")
    guest.must_live()
    assert len(asked) == 1
    printed(guest, PANIC)
    guest.must_live()
    assert len(asked) == 2


def silent(guest: Guest) -> None:
    object.__setattr__(guest, "shell", FakeShell({"true": GuestLostError("no answer")}))


@pytest.mark.parametrize("sign", [lambda guest: ended(guest, -9), silent])
def test_a_panic_is_one_where_the_guest_does_not_answer(guest: Guest, sign: Callable[[Guest], None]) -> None:
    printed(guest, PANIC)
    guest.must_live()  # a process printed it
    sign(guest)
    printed(guest, PANIC)
    with pytest.raises(GuestPanicError) as error:
        guest.must_live()
    assert error.value.details == PANIC.partition("] ")[2].strip()
    assert "sysrq" in error.value.console_tail
    assert isinstance(lost(guest), GuestPanicError)


def test_a_console_that_is_flooded(guest: Guest) -> None:
    with guest.console.path.open("ab") as console:
        console.truncate(FLOOD_BYTES + 1)
    assert lost(guest).brief == "the guest floods its console"


def test_no_two_causes_have_one_place() -> None:
    orders = [cause.order for _, cause in CAUSES]
    assert len(set(orders)) == len(orders) >= 8
