"""QEMU has ended: it was killed, it failed, or the guest reset or powered off."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import ClassVar, Final

from orchestrator.errors import GuestError, InfrastructureError
from orchestrator.guest.causes.base import CAUSES, Cause, Scene
from orchestrator.guest.oom_log import KILLED, OomKill, find_kills
from orchestrator.host.domain import MonitorEvent
from orchestrator.printable import clean, printable
from orchestrator.units import format_size

_QEMU: Final = "qemu-system"
_RECENT_SECONDS: Final = 120.0

# ShutdownCause, qapi/run-state.json. A domain of ours ends where it would start anew (`on_reboot` destroy):
# libvirt ends its QEMU then, so what QEMU says first is the reason. `host-signal` is a TERM, INT or HUP.
_REASONS: Final = {
    "guest-reset": "the guest reset itself",
    "guest-shutdown": "the guest powered itself off",
    "guest-panic": "the guest's kernel panicked",
    "subsystem-reset": "the guest reset itself",
    "host-qmp-quit": "QEMU was asked to quit",
    "host-qmp-system-reset": "QEMU was asked to reset the guest",
    "host-signal": "QEMU was ended by a signal",
    "host-error": "QEMU failed",
}


@CAUSES.register("qemu-ended")
class QemuEnded(Cause):
    """QEMU says why it ends where it does so by itself; else its exit status, the kernel's log and its own
    last words do."""

    order: ClassVar = 30

    def look(self, scene: Scene) -> GuestError | None:
        # QEMU says that it ends before libvirt has it ended.
        if scene.domain.is_running() and not _reason(scene.domain.happened()):
            return None
        said = printable(scene.domain.why_ended())
        status = scene.domain.exit_status()
        how = _how(status)
        details = "\n".join(part for part in (how and f"QEMU {how}", said) if part)
        if reason := _reason(scene.domain.happened()):
            return scene.lost(reason, details=said)
        if kill := _kill(scene):
            return scene.lost(f"the host's OOM killer ended QEMU{_with(kill)}", details=details, hint=_MEMORY)
        if status == -signal.SIGKILL and _killed_in_cgroup(scene):
            cgroup = scene.seen.cgroup.path if scene.seen.cgroup else ""
            return scene.lost(
                f"QEMU was killed, and the OOM killer ended a process in its memory cgroup {cgroup}",
                details=details,
                hint=_MEMORY,
            )
        if how:
            return scene.lost(f"QEMU {how}", details=said)
        return scene.lost("the guest stopped running", details=said)


_MEMORY: Final = (
    "give the guest less memory, or the cgroup that it runs in more: see MemAvailable and memory.max"
)


def _how(status: int | None) -> str:
    """Of an exit status, -N for signal N; empty where it is not known, or says nothing."""
    if status is None or status == 0:
        return ""
    if status > 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _reason(events: tuple[MonitorEvent, ...]) -> str:
    """What QEMU said of its end, where it said so."""
    reasons = [str(event.data.get("reason", "")) for event in events if event.name == "SHUTDOWN"]
    return _REASONS.get(reasons[0], f"QEMU ended: {clean(reasons[0])}") if reasons else ""


def _kill(scene: Scene) -> OomKill | None:
    with suppress(InfrastructureError, OSError):
        qemu = scene.domain.qemu
        kills = find_kills("\n".join(qemu.shell.kernel_log(KILLED, seconds=_RECENT_SECONDS)))
        named = [kill for kill in kills if kill.comm.startswith(_QEMU)]
        if own := next((kill for kill in named if kill.pid == qemu.pid), None):
            return own
        # In a pid namespace the kernel's number is another one: its name, and the count, say as much.
        return named[-1] if named and _killed_in_cgroup(scene) else None
    return None


def _with(kill: OomKill) -> str:
    whose = "its cgroup's memory" if kill.out_of == "cgroup" else "the host's memory"
    return f", with {format_size(kill.anon_rss_bytes)} of anonymous memory: {whose} had run out"


def _killed_in_cgroup(scene: Scene) -> bool:
    now = scene.seen.kills_now(scene.domain)
    return now is not None and scene.seen.kills is not None and now > scene.seen.kills
