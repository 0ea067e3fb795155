"""Second-level page tables: how many a guest needs for what the host has of its memory. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.model.tables import needed_tables
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

# What a QEMU of machine type q35 or pc maps beside RAM: its firmware, below 4 GiB, by one PTE table and
# the PMD table above it.
_FIRMWARE_TABLES = 2


def needed_bytes(pages: NDArray[np.int64], huge: NDArray[np.bool_]) -> int:
    """Bytes of tables, of all levels, that map some pages of a guest and no others.

    `pages`: sorted numbers of the guest's 4 KiB pages that the host has, shape (n,); `huge`, of the same
    shape, those that are part of a huge page of the host. KVM maps such a range of 2 MiB by a leaf of the
    PMD table (kvm_mmu_max_mapping_level(), arch/x86/kvm/mmu/mmu.c), which needs no PTE table. The first 2 MiB
    are never mapped so: legacy video and ROMs are memory slots of their own in it.
    """
    if not len(pages):
        return 0
    small = pages[~huge | (pages < ENTRIES_PER_TABLE)]
    counts = needed_tables(pages)
    of_leaves = needed_tables(small, levels=1)
    return int(counts[2:].sum() + of_leaves[1] + _FIRMWARE_TABLES) * PAGE_BYTES
