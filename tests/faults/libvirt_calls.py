"""libvirt or QEMU's monitor gives no answer, or gives it after its deadline."""

from __future__ import annotations

from campaign.fault import Expected, Fault

# pause(2) and sleep(3) in C, as a call into libvirt waits: Python gets no turn in that thread.
_INSTEAD = """\
import ctypes
from orchestrator.host import libvirt_domain

inflate = libvirt_domain.LibvirtDomain.request_balloon
def instead(self, size_bytes):
    c = ctypes.CDLL(None)
    {before}
    return inflate(self, size_bytes)
libvirt_domain.LibvirtDomain.request_balloon = instead
"""
_NEVER = _INSTEAD.format(before="self._call(c.pause)")
_LATE = _INSTEAD.format(before="self._call(lambda: c.usleep(70_000_000) or c.usleep(0))")
_STOPPED = """\
import os, signal
from orchestrator.host import libvirt_domain

inflate = libvirt_domain.LibvirtDomain.request_balloon
def instead(self, size_bytes):
    os.kill(self.qemu.pid, signal.SIGSTOP)
    return inflate(self, size_bytes)
libvirt_domain.LibvirtDomain.request_balloon = instead
"""
_STEPS = ("wait: {time: 2s}", "inflate: {by: 64MiB}")
_MACHINE_HAS_BALLOON = "step 2 of 2"

FAULTS = [
    Fault(
        "libvirt-never-returns",
        "host processes",
        "a call into libvirt never returns",
        "step",
        Expected(3, "failed", ("libvirt gave no answer about the guest within 60 s",), 120),
        steps=_STEPS,
        moment=_MACHINE_HAS_BALLOON,
        inject=_NEVER,
    ),
    Fault(
        "qmp-reply-late",
        "host processes",
        "QEMU's monitor answers after the deadline of the call",
        "step",
        Expected(3, "failed", ("libvirt gave no answer about the guest within 60 s",), 120),
        steps=_STEPS,
        moment=_MACHINE_HAS_BALLOON,
        inject=_LATE,
    ),
    Fault(
        "qemu-stopped-in-a-call",
        "host processes",
        "QEMU is stopped (SIGSTOP) just before libvirt asks it something",
        "step",
        Expected(3, "lost", ("a signal has stopped QEMU (SIGSTOP)",), 120),
        steps=_STEPS,
        moment=_MACHINE_HAS_BALLOON,
        inject=_STOPPED,
    ),
]
