"""The virtio-mem device as QEMU sees it (QMP query-memory-devices)."""

from collections.abc import Iterator

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe


@PROBES.register("virtio_mem")
class VirtioMemProbe(Probe):
    """Plugged and requested size. virtio-mem says nothing when it stops short: this shows it."""

    def from_host(self, host: HostView) -> Iterator[Reading]:
        state = host.domain.virtio_mem()
        if state is None:
            return
        yield Reading("size", state.size, "bytes")
        yield Reading("requested_size", state.requested, "bytes")
