"""What address translation costs a guest under KVM: counters of the host's PMU in guest mode.

Counted by perf_event_open(2) in the host's reader, as `perf stat -e EVENT:G` does. A `perf stat -I` beside
the run would be one more process to end on each kind of host, after a kill -9 as well, whose names of events
and columns differ from version to version; file descriptors end with the reader.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import of_first_processor
from orchestrator.records.accel import is_emulated
from orchestrator.series import Series

if TYPE_CHECKING:
    from orchestrator.host.shell import HostShell

_PMU: Final = "/sys/bus/event_source/devices/cpu/type"
_CPUINFO: Final = "/proc/cpuinfo"
_PARANOID: Final = "/proc/sys/kernel/perf_event_paranoid"

NO_PMU: Final = (
    "the host has no PMU of its CPUs (/sys/bus/event_source/devices/cpu), as most virtual machines"
)
EMULATED: Final = "the guest is emulated: its instructions do not run in guest mode"
NO_VCPU: Final = "QEMU has no thread that is named as a vCPU under KVM"
TURNS: Final = "other events had the PMU's counters for some of the time: what was counted is a part"
_NOT_OF_CPU: Final = "no such event is listed for this CPU"

# include/uapi/linux/perf_event.h. DTLB misses are generic events: DTLB_*_MISSES.WALK_COMPLETED on Skylake
# (arch/x86/events/intel/core.c), page walks on Zen (amd/core.c: 0xf045), which has none for stores.
_HARDWARE, _CACHE, _RAW = 0, 3, 4
_DTLB, _READ, _WRITE, _MISS = 3, 0, 1, 1
_GENERIC: Final = {
    "cycles": (_HARDWARE, 0),
    "instructions": (_HARDWARE, 1),
    "dtlb_load_misses": (_CACHE, _DTLB | _READ << 8 | _MISS << 16),
    "dtlb_store_misses": (_CACHE, _DTLB | _WRITE << 8 | _MISS << 16),
}
# tools/perf/pmu-events/arch/x86: DTLB_LOAD_MISSES.WALK_ACTIVE (cmask 1), EPT.WALK_PENDING.
_WALK_08: Final = (_RAW, 0x08 | 0x10 << 8 | 1 << 24)
_WALK_12: Final = (_RAW, 0x12 | 0x10 << 8 | 1 << 24)
_EPT_4F: Final = (_RAW, 0x4F | 0x10 << 8)
_SKYLAKE: Final = {0x4E, 0x5E, 0x8E, 0x9E, 0x55}  # with Kaby Lake, Coffee Lake and Cascade Lake
_ICE_LAKE: Final = {0x7D, 0x7E, 0x6A, 0x6C}
_SAPPHIRE_RAPIDS: Final = {0x8F}


def _events(vendor: str, family: int, model: int) -> dict[str, tuple[int, int]]:
    """(type, config) of each series that there is an event for on a CPU."""
    if (vendor, family) != ("GenuineIntel", 6):
        return dict(_GENERIC)
    walks: dict[str, tuple[int, int]] = {}
    if model in _SKYLAKE:
        walks = {"page_walk_cycles": _WALK_08, "ept_walk_cycles": _EPT_4F}
    elif model in _ICE_LAKE:
        walks = {"page_walk_cycles": _WALK_08}
    elif model in _SAPPHIRE_RAPIDS:
        walks = {"page_walk_cycles": _WALK_12}
    return {**_GENERIC, **walks}


@PROBES.register("host_perf")
class HostPerf(Probe):
    """Of all vCPUs in guest mode, since the first sample.

    A count is there only where the counter ran all the time: none is scaled up.
    """

    series: ClassVar = (
        Series("cycles", "count", "cycles of the vCPUs in guest mode, since the first sample"),
        Series("instructions", "count", "instructions that the vCPUs retired in guest mode"),
        Series("dtlb_load_misses", "count", "page walks for loads of the guest that missed all data TLBs"),
        Series("dtlb_store_misses", "count", "the same for stores (no such event on AMD)"),
        Series(
            "page_walk_cycles",
            "count",
            "cycles in which a page walk for a load went on (DTLB_LOAD_MISSES.WALK_ACTIVE: Skylake, where "
            "walks of EPT are not in it, Ice Lake, Sapphire Rapids)",
        ),
        Series("ept_walk_cycles", "count", "cycles of EPT walks (EPT.WALK_PENDING; Skylake)"),
    )

    def __init__(self) -> None:
        self._missing = ""  # why nothing can be read: found once
        self._events: dict[str, tuple[int, int]] = {}
        self._paranoid = "?"

    def from_host(self, host: HostView) -> Iterator[Reading]:
        if not (self._missing or self._events):
            self._missing = EMULATED if is_emulated(host.accel) else self._look(host.shell)
        names = list(self._events)
        found = (
            {} if self._missing else host.shell.guest_counters(host.domain.qemu.pid, [*self._events.values()])
        )
        counts = dict(zip(names, found.get("counts", ()), strict=False))
        for name in (one.name for one in self.series):
            if self._missing:
                gap = self._missing
            elif name not in self._events:
                gap = _NOT_OF_CPU
            else:
                gap = self._gap(counts.get(name))
            yield Reading(name, None if gap else counts[name][0], gap=gap)

    def _look(self, shell: HostShell) -> str:
        """Find the CPU's events; the reason where there can be none."""
        texts = shell.texts(_PMU, _CPUINFO, _PARANOID)
        if _PMU not in texts:
            return NO_PMU
        self._paranoid = texts.get(_PARANOID, "?").strip()
        vendor, family, model = (
            of_first_processor(texts.get(_CPUINFO, ""), name) for name in ("vendor_id", "cpu family", "model")
        )
        numbers = (int(text) if text.isdecimal() else 0 for text in (family, model))
        self._events = _events(vendor, *numbers)
        return ""

    def _gap(self, counted: list[int] | None) -> str:
        """Why a count is no reading: of [count, time enabled, time running], or [errno]."""
        if counted is None:
            return NO_VCPU
        if len(counted) == 1:
            (number,) = counted
            if number in {errno.EACCES, errno.EPERM}:
                return (
                    f"the host's kernel does not let us count (perf_event_paranoid is {self._paranoid}): it "
                    "takes CAP_PERFMON"
                )
            if number in {errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL}:
                return "the host's PMU has no such event"
            return f"the host's kernel does not count it: {os.strerror(number)}"
        _, enabled, running = counted
        return TURNS if running < enabled else ""
