"""The virtio-mem device as QEMU sees it (QMP query-memory-devices)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.series import Chart, Line, Series

_CHART = Chart(
    "virtio-mem",
    "Resizable memory",
    "Size of the virtio-mem device: solid is what is plugged, dashed what the host requests. Where they "
    "stay apart, the rest could not be unplugged.",
    order=100,
)


@PROBES.register("virtio_mem")
class VirtioMemProbe(Probe):
    """Plugged and requested size. virtio-mem says nothing when it stops short: this shows it."""

    series: ClassVar = (
        Series("size", "bytes", "what is plugged of the device", line=Line(_CHART, "plugged")),
        Series(
            "requested_size",
            "bytes",
            "what the host asks the device to have plugged",
            line=Line(_CHART, "requested", dashed=True),
        ),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        state = host.domain.virtio_mem()
        if state is None:
            return
        yield Reading("size", state.size)
        yield Reading("requested_size", state.requested)
