"""Which guest pages QEMU has mapped (/proc/PID/pagemap), and the second-level tables that needs."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Origin, Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.probes.host_meminfo import SECOND_LEVEL_CHART
from orchestrator.series import Headline, Line, Series
from orchestrator.units import PAGE_BYTES, PMD_BYTES

_OLD = "the host's kernel does not tell which pages are huge (Linux 6.7 does)"


@PROBES.register("host_pagemap")
class HostPagemap(Probe):
    """`second_level_needed_bytes`: tables of all levels that map what is backed, huge pages as such.

    `zero_page_bytes` take no memory, and are neither in `present_bytes` nor needed: never written. Pages
    that KSM merged are present. `huge_ranges` and `small_ranges` count ranges of 2 MiB. On a host that does
    not tell huge pages from others, the prediction is an upper bound; where it cannot tell zero pages from
    merged ones, none of the three is known.
    """

    series: ClassVar = (
        Series("present_bytes", "bytes", "guest memory that QEMU has in RAM", moment="present_bytes"),
        Series("swapped_bytes", "bytes", "guest memory that QEMU has in swap"),
        Series("zero_page_bytes", "bytes", "guest memory that was read, and never written"),
        Series("huge_ranges", "count", "ranges of 2 MiB that are backed by huge pages", moment="huge_ranges"),
        Series("small_ranges", "count", "ranges of 2 MiB that are backed by others", moment="small_ranges"),
        Series(
            "second_level_needed_bytes",
            "bytes",
            "tables of all levels that map what is present, huge pages as such",
            origin=Origin.PREDICTED,
            headlines=(Headline("second_level_needed_bytes", "last", "", PAGE_BYTES),),
            line=Line(SECOND_LEVEL_CHART, "needed (predicted)", dashed=True),
            moment="needed_bytes",
        ),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        import numpy as np

        from orchestrator.host.qemu_process import NO_ZERO_PAGES, page_state
        from orchestrator.model.second_level import needed_bytes

        qemu = host.domain.qemu
        pages, huge, present_pages, swapped_pages, tells, tells_zeros = [], [], 0, 0, True, True
        for segment in host.segments:
            state = page_state(qemu, segment)
            backed = np.flatnonzero(state.backed)
            pages.append(backed + segment.guest_physical // PAGE_BYTES)
            tells &= state.huge is not None
            huge.append(np.zeros(len(backed), dtype=bool) if state.huge is None else state.huge[backed])
            present_pages += int(np.count_nonzero(state.present))
            swapped_pages += int(np.count_nonzero(state.swapped))
            tells_zeros &= state.zero_page is not None
        mapped, is_huge = np.concatenate(pages), np.concatenate(huge)
        gap = "" if tells_zeros else NO_ZERO_PAGES

        def sure(value: int) -> int | None:
            return None if gap else value

        yield Reading("present_bytes", sure(len(mapped) * PAGE_BYTES), gap=gap)
        yield Reading("swapped_bytes", swapped_pages * PAGE_BYTES)
        zero_bytes = (present_pages - len(mapped)) * PAGE_BYTES
        yield Reading("zero_page_bytes", sure(zero_bytes), gap=gap)
        for name, chosen in (("huge_ranges", mapped[is_huge]), ("small_ranges", mapped[~is_huge])):
            ranges = len(np.unique(chosen // (PMD_BYTES // PAGE_BYTES)))
            yield Reading(name, ranges if tells else None, gap="" if tells else _OLD)
        needed = needed_bytes(mapped, is_huge, host.devices)
        yield Reading("second_level_needed_bytes", sure(needed), gap=gap)
