"""The plugged pc-dimm devices as QEMU sees them (QMP query-memory-devices)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.series import Series


@PROBES.register("dimms")
class DimmProbe(Probe):
    """How many are plugged, and their bytes; nothing for a machine that never has any."""

    series: ClassVar = (
        Series("plugged_bytes", "bytes", "sum of the plugged DIMMs"),
        Series("plugged", "count", "DIMMs that are plugged"),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        if not host.machine.dimms:
            return
        dimms = host.domain.dimms()
        yield Reading("plugged_bytes", sum(dimm.size for dimm in dimms))
        yield Reading("plugged", len(dimms))
