"""A guest in trouble of its own: ssh, its disk, its clock, its memory, its CPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

from campaign.fault import Expected, Fault
from campaign.guest_files import python_in_guest
from campaign.scene import Scene

_SSH_GOES = "systemctl stop ssh.socket ssh; (sleep 1; pkill -9 sshd) >/dev/null 2>&1 &"
_FULL = (
    "sh, -c, 'fallocate -l $(df -B1 --output=avail / | tail -n 1) /full; cat /dev/zero > /rest;"
    " ! echo x > /root/more'"
)
_SPIN = bytes([0xFA, 0xF3, 0x90, 0xEB, 0xFC])  # cli; pause; jmp to the pause


def _cut_ssh(scene: Scene) -> None:
    scene.in_guest(_SSH_GOES, check=False)


def _cut_connection(scene: Scene) -> None:
    # Of all sessions, so that of the orchestrator is among them; sshd itself goes on.
    scene.in_guest("(sleep 1; pkill -9 sshd-session) >/dev/null 2>&1 &", check=False)


def _time_stays_monotonic(scene: Scene) -> None:
    import pandas as pd

    assert scene.run is not None
    (path,) = scene.run.glob("trials/*/observations.parquet")
    read = pd.read_parquet(path)
    assert read["t_ns"].is_monotonic_increasing, "times of samples go back"
    assert read["t_ns"].max() < 600e9, "times of samples jump"


def _hog(score: int, *, first: str = "") -> str:
    """What takes all memory, in pieces, as a process with such an oom_score_adj."""
    return python_in_guest(
        f"import os, subprocess, time\n{first}\nopen('/proc/self/oom_score_adj', 'w').write('{score}')\n"
        "have = []\nwhile True:\n    have.append(b'x' * (8 << 20))\n    time.sleep(0.005)\n"
    )


_EXPOSE = (
    "pids = subprocess.check_output(['pgrep', '-f', '^/usr/local/bin/guest-probe sample']).split()\n"
    "for pid in pids: open(f'/proc/{int(pid)}/oom_score_adj', 'w').write('1000')"
)


def _oom_takes_sampler(scene: Scene) -> None:
    scene.in_guest(_hog(-900, first=_EXPOSE))


def _spin(scene: Scene) -> None:
    """Write a loop with interrupts off over a handler of sysrq in the guest's memory, and have it called.

    Nothing in a stock guest does that by itself. The handler was not run before, so that no translation of it
    is cached; QEMU's mapping of the guest's RAM is the one of that size.
    """
    said = scene.in_guest(
        "grep -E ' (_text|sysrq_handle_showstate_blocked)$' /proc/kallsyms; grep 'Kernel code' /proc/iomem"
    )
    symbols = {
        line.split()[2]: int(line.split()[0], 16)
        for line in said.splitlines()
        if " T " in line or " t " in line
    }
    code = re.search(r"([0-9a-f]+)-[0-9a-f]+ : Kernel code", said)
    assert code is not None
    place = int(code[1], 16) + symbols["sysrq_handle_showstate_blocked"] - symbols["_text"]
    pid = scene.pid("qemu-system")
    ram = None
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        first, _, last = line.split()[0].partition("-")
        if int(last, 16) - int(first, 16) == 512 << 20:
            ram = int(first, 16)
    assert ram is not None, "QEMU maps no RAM of that size"
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        memory.seek(ram + place)
        memory.write(_SPIN)
    scene.in_guest("(sleep 0.5; echo w > /proc/sysrq-trigger) >/dev/null 2>&1 &")
    scene.strike_now()


def _steps_say_so(scene: Scene) -> None:
    assert scene.run is not None
    (path,) = scene.run.glob("trials/*/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = {str(event.get("event") or event.get("name")) for event in events}
    ends = [event for event in events if "step.end" in json.dumps(event)]
    assert any("kill" in json.dumps(end).lower() for end in ends), f"no step says that it was killed: {kinds}"


FAULTS = [
    Fault(
        "sshd-killed",
        "guest",
        "sshd and all of its sessions are killed, and do not come back",
        "step",
        Expected(3, "lost", ("the guest does not answer on ssh any more, though QEMU and passt run",), 90),
        strike=_cut_ssh,
    ),
    Fault(
        "ssh-session-killed",
        "guest",
        "the session of sshd that serves the orchestrator is killed",
        "step",
        Expected(
            3, "lost", ("the ssh connection to the guest ended, though the guest answers on a new one",), 60
        ),
        strike=_cut_connection,
    ),
    Fault(
        "vcpu-spins",
        "guest",
        "the vCPU spins with interrupts off",
        "step",
        Expected(3, "lost", ("the guest does not answer on ssh any more, though QEMU and passt run",), 200),
        strike=_spin,
    ),
    Fault(
        "root-full",
        "guest",
        "the root filesystem is full",
        "step",
        Expected(0, "completed", (), 90),
        steps=(f"exec: {{argv: [{_FULL}]}}", "wait: {time: 2s}", "snapshot: {label: full}"),
    ),
    Fault(
        "root-read-only",
        "guest",
        "the root filesystem turns read-only",
        "step",
        Expected(0, "completed", (), 90),
        steps=(
            "exec: {argv: [sh, -c, 'echo u > /proc/sysrq-trigger; sleep 1; ! touch /root/more']}",
            "wait: {time: 2s}",
            "snapshot: {label: read-only}",
        ),
    ),
    Fault(
        "clock-back-a-year",
        "guest",
        "the guest's clock is set back by a year",
        "step",
        Expected(0, "completed", (), 90),
        steps=("exec: {argv: [date, -s, '-1 year']}", "wait: {time: 3s}", "snapshot: {label: earlier}"),
        check=_time_stays_monotonic,
    ),
    Fault(
        "oom-takes-workload",
        "guest",
        "the guest's OOM killer takes the workload",
        "step",
        Expected(0, "completed", ("killed",), 120),
        steps=(
            "start: {workload: sparse-map, set: {span: 1TiB, window: 128MiB}, timeout: 5min}",
            "wait: {time: 2s}",
        ),
        check=_steps_say_so,
    ),
    Fault(
        "oom-takes-sampler",
        "guest",
        "the guest's OOM killer takes the sampler, which had lost its protection",
        "step",
        Expected(3, "lost", ("the sampler in the guest (guest-probe) ended",), 120),
        strike=_oom_takes_sampler,
    ),
]
