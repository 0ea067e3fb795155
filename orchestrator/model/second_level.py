"""Second-level page tables: how many a guest needs for what the host has of its memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.model.tables import needed_tables
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

# What a q35 machine maps beside RAM and PCI devices, whether memory or not: for a place without memory KVM
# keeps an entry as well, that says so (handle_mmio_page_fault(), arch/x86/kvm/mmu/mmu.c). Addresses of
# IOAPIC and HPET, of the local APIC, and of the firmware (hw/i386/pc_q35.c, hw/i386/x86-common.c).
_CHIPSET = (0xFEC0_0000, 0xFEE0_0000, 0xFFFC_0000)
# PCI configuration space: 1 MiB for each bus (MCH_HOST_BRIDGE_PCIEXBAR_DEFAULT, include/hw/pci-host/q35.h).
_ECAM, _ECAM_BYTES_OF_BUS = 0xB000_0000, 1 << 20
_RANGE = ENTRIES_PER_TABLE * PAGE_BYTES


def device_pages(bars: list[tuple[int, int]], buses: int) -> NDArray[np.int64]:
    """Numbers of pages, one in each range of 2 MiB in which a guest finds devices.

    `bars` are (address, size) of the memory of PCI devices, `buses` how many of those there are. Of a large
    one a guest uses the beginning, such as a table of interrupts.
    """
    ecam = range(_ECAM, _ECAM + buses * _ECAM_BYTES_OF_BUS, _ECAM_BYTES_OF_BUS)
    ranges = {start // _RANGE for start in (*(start for start, _ in bars), *ecam, *_CHIPSET)}
    return np.array(sorted(ranges), dtype=np.int64) * ENTRIES_PER_TABLE


def needed_bytes(
    pages: NDArray[np.int64], huge: NDArray[np.bool_], devices: NDArray[np.int64] | None = None
) -> int:
    """Bytes of tables, of all levels, that map some pages of a guest and no others.

    `pages`: sorted numbers of the guest's 4 KiB pages that the host has, shape (n,); `huge`, of the same
    shape, those that are part of a huge page of the host. KVM maps such a range of 2 MiB by a leaf of the
    PMD table (kvm_mmu_max_mapping_level(), arch/x86/kvm/mmu/mmu.c), which needs no PTE table. Nor does it
    keep one to split the leaf by, as QEMU's own tables do (TableState.DEPOSITED). The first 2 MiB are never
    mapped so: legacy video and ROMs are memory slots of their own in it. `devices`: as `device_pages` gives
    them.

    Left out: the tables that KVM has for the guest's system management mode, a handful.
    """
    if not len(pages):
        return 0
    beside = np.empty(0, np.int64) if devices is None else devices
    small = np.union1d(pages[~huge | (pages < ENTRIES_PER_TABLE)], beside)
    above = needed_tables(np.union1d(pages, beside))[2:].sum()
    return int(above + needed_tables(small, levels=1)[1]) * PAGE_BYTES


def fullest(present: NDArray[np.int64], least_pages: int, most_missing_bytes: int) -> NDArray[np.int64]:
    """Which ranges of 2 MiB become huge pages, as indices into `present`, shape (ranges,): pages of each.

    Those with `least_pages` at least, the fullest first and the first of equals, as many as lack no more
    than `most_missing_bytes` together.
    """
    full = np.flatnonzero(present >= least_pages)
    order = full[np.argsort(-present[full], kind="stable")]
    missing = np.cumsum((ENTRIES_PER_TABLE - present[order].astype(np.int64)) * PAGE_BYTES)
    return order[: int(np.searchsorted(missing, most_missing_bytes, side="right"))]


@dataclass(frozen=True)
class RamRanges:
    """A guest's RAM by ranges of 2 MiB, as the host has it; only those of which it has something.

    Arrays of shape (ranges,), by ascending number.
    """

    number: NDArray[np.int64]
    """Address / 2 MiB."""
    present: NDArray[np.int64]
    """4 KiB pages that the host has of it."""
    huge: NDArray[np.bool_]
    """Backed by a huge page."""

    @classmethod
    def of(cls, regions: NDArray[np.int64]) -> RamRanges:
        """Of regions (first page, page behind the last, whether huge), shape (n, 3), that do not overlap."""
        kept = regions[regions[:, 1] > regions[:, 0]]
        first, last = kept[:, 0] // ENTRIES_PER_TABLE, (kept[:, 1] - 1) // ENTRIES_PER_TABLE
        of_each = last - first + 1
        # A row for each range that a region touches.
        region = np.repeat(np.arange(len(kept)), of_each)
        within = np.arange(int(of_each.sum())) - np.repeat(np.cumsum(of_each) - of_each, of_each)
        number = first[region] + within
        start = np.maximum(kept[region, 0], number * ENTRIES_PER_TABLE)
        end = np.minimum(kept[region, 1], (number + 1) * ENTRIES_PER_TABLE)
        found, at = np.unique(number, return_inverse=True)
        present = np.zeros(len(found), dtype=np.int64)
        huge = np.zeros(len(found), dtype=np.bool_)
        np.add.at(present, at, end - start)
        np.logical_or.at(huge, at, kept[region, 2] != 0)
        return cls(found, present, huge)

    @property
    def needed_bytes(self) -> int:
        """As `needed_bytes` has it, without devices."""
        if not len(self.number):
            return 0
        small = ~self.huge | (self.number == 0)
        # A PMD table for each GiB of which there is something, and so on.
        above = needed_tables(self.number, levels=3)[1:].sum()
        return int(above + np.count_nonzero(small)) * PAGE_BYTES

    def nearly_full(self, least_pages: int) -> NDArray[np.int64]:
        """Pages present of each range that is not huge, of those with `least_pages` at least."""
        return self.present[~self.huge & (self.present >= least_pages)]
