"""Which guest pages QEMU has mapped (/proc/PID/pagemap), and the second-level tables that needs."""

from collections.abc import Iterator

import numpy as np

from orchestrator.host.qemu_process import page_state
from orchestrator.model.tables import needed_tables
from orchestrator.observation import Origin, Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.units import PAGE_BYTES


@PROBES.register("host_pagemap")
class HostPagemap(Probe):
    """`second_level_needed_bytes`: tables of all levels, if each backed page is mapped as 4 KiB.

    `zero_page_bytes` take no memory, and are neither in `present_bytes` nor needed: nobody wrote them.

    An upper bound where the host backs the guest with huge pages, which need no last-level table.
    """

    def from_host(self, host: HostView) -> Iterator[Reading]:
        pid = host.domain.pid
        pages, swapped_pages, zero_pages = [], 0, 0
        for segment in host.segments:
            state = page_state(pid, segment)
            pages.append(np.flatnonzero(state.backed) + segment.guest_physical // PAGE_BYTES)
            swapped_pages += int(np.count_nonzero(state.swapped))
            zero_pages += int(np.count_nonzero(state.zero_page))
        mapped = np.concatenate(pages)
        yield Reading("present_bytes", len(mapped) * PAGE_BYTES, "bytes")
        yield Reading("swapped_bytes", swapped_pages * PAGE_BYTES, "bytes")
        yield Reading("zero_page_bytes", zero_pages * PAGE_BYTES, "bytes")
        needed = int(needed_tables(mapped).sum()) * PAGE_BYTES
        yield Reading("second_level_needed_bytes", needed, "bytes", origin=Origin.PREDICTED)
