"""What a host has of a VM's memory, by ranges of 2 MiB: which could be huge pages, what tables they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.host.domain import QemuProcess
from orchestrator.host.qemu_process import NO_ZERO_PAGES, Segment, page_state
from orchestrator.model.second_level import fullest, needed_bytes
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES, PMD_BYTES


@dataclass(frozen=True)
class SmallRange:
    """A whole range of 2 MiB in pages of 4 KiB, none of them in swap: its addresses in QEMU and in the guest,
    and how many of its 512 pages are there."""

    address: int
    guest_physical: int
    present: int

    @property
    def missing_bytes(self) -> int:
        """What a huge page would take beside what is there."""
        return PMD_BYTES - self.present * PAGE_BYTES


@dataclass(frozen=True)
class GuestMemory:
    """The guest's 4 KiB pages that the host has: `pages`, sorted, and whether each is part of a huge page,
    `huge`, both of shape (n,); and its ranges. `unknown`: why the host cannot tell that; else empty."""

    pages: NDArray[np.int64]
    huge: NDArray[np.bool_]
    ranges: tuple[SmallRange, ...]
    unknown: str = ""

    @classmethod
    def read(cls, qemu: QemuProcess, segments: Sequence[Segment]) -> GuestMemory:
        """As it is now. Raises OSError, and InfrastructureError where QEMU's memory ends too soon."""
        pages, huge, ranges, unknown = [], [], [], ""
        for segment in segments:
            state = page_state(qemu, segment)
            if state.huge is None or state.zero_page is None:
                unknown = NO_ZERO_PAGES
            is_huge = np.zeros(len(state.present), bool) if state.huge is None else state.huge
            backed = np.flatnonzero(state.backed)
            pages.append(backed + segment.guest_physical // PAGE_BYTES)
            huge.append(is_huge[backed])
            ranges += _ranges(segment, state.backed, is_huge, state.swapped)
        return cls(
            np.concatenate(pages),
            np.concatenate(huge),
            tuple(ranges),
            unknown,
        )

    def candidates(self, min_present: int, most_missing_bytes: int) -> tuple[SmallRange, ...]:
        """Ranges with so many pages there, the fullest first, as many as lack no more than that together."""
        ranges = sorted(self.ranges, key=lambda one: one.address)
        present = np.array([one.present for one in ranges], np.int64)
        return tuple(ranges[at] for at in fullest(present, min_present, most_missing_bytes).tolist())

    def needed(self, collapsed: Sequence[SmallRange] = ()) -> int:
        """Bytes of second-level tables that map what is there, with some ranges as huge pages.

        Without those of devices, a handful.
        """
        first = np.array([one.guest_physical // PAGE_BYTES for one in collapsed], np.int64)
        inside = (first[:, None] + np.arange(ENTRIES_PER_TABLE)).ravel()
        pages = np.union1d(self.pages, inside)
        huge = np.isin(pages, np.union1d(self.pages[self.huge], inside))
        return needed_bytes(pages, huge)


def _ranges(
    segment: Segment, backed: NDArray[np.bool_], huge: NDArray[np.bool_], swapped: NDArray[np.bool_]
) -> list[SmallRange]:
    skip = -segment.host_virtual % PMD_BYTES // PAGE_BYTES
    count = max(0, len(backed) - skip) // ENTRIES_PER_TABLE

    def rows(pages: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return pages[skip : skip + count * ENTRIES_PER_TABLE].reshape(count, ENTRIES_PER_TABLE)

    present = rows(backed).sum(axis=1)
    small = ~(rows(huge) | rows(swapped)).any(axis=1)
    return [
        SmallRange(segment.host_virtual + offset, segment.guest_physical + offset, int(present[row]))
        for row in np.flatnonzero(small & (present > 0)).tolist()
        for offset in [skip * PAGE_BYTES + row * PMD_BYTES]
    ]
