"""What the guest's QEMU process costs its host (/proc/PID/status)."""

from collections.abc import Iterator

from orchestrator.host.qemu_process import status_bytes
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe

_WANTED = ("VmRSS", "VmPTE", "VmSwap", "VmSize")


@PROBES.register("host_qemu")
class HostQemu(Probe):
    """VmPTE is the first level of translation on the host: QEMU's own tables, not KVM's. Those that are
    deposited for huge pages count (mm_inc_nr_ptes() in mm/huge_memory.c), 4 KiB for each."""

    def from_host(self, host: HostView) -> Iterator[Reading]:
        values = status_bytes(host.domain.qemu)
        for name in _WANTED:
            if name in values:
                yield Reading(name, values[name], "bytes")
            else:
                yield Reading(name, None, "bytes", gap="QEMU's /proc/PID/status has no such line")
