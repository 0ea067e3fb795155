"""Second-level page tables: how many a guest needs for what the host has of its memory. Pure."""

from __future__ import annotations

from orchestrator.units import ENTRIES_PER_TABLE, GIB, PAGE_BYTES

# What a QEMU of machine type q35 or pc maps beside RAM: its firmware, below 4 GiB, by one PTE table and
# the PMD table above it; and option ROMs and legacy video, which lie in the first 2 MiB of RAM.
_FIRMWARE_TABLES = 2
_UPPER_TABLES = 2  # root and PDPT, of four levels and at most 512 GiB


def needed_bytes(ranges_4k: int, ram_bytes: int) -> int:
    """Bytes of tables, of all levels, for a guest whose RAM begins at 0 and is below the hole under 4 GiB.

    `ranges_4k` aligned ranges of 2 MiB have a page of 4 KiB present in the host, and need a PTE table
    each; a range that is one huge page is a leaf of the PMD table, which is there anyway.
    """
    if not 0 <= ranges_4k <= ram_bytes // (PAGE_BYTES * ENTRIES_PER_TABLE):
        raise ValueError(f"{ranges_4k} ranges of 2 MiB in {ram_bytes} bytes")
    pmd_tables = -(-ram_bytes // GIB)
    return (ranges_4k + pmd_tables + _FIRMWARE_TABLES + _UPPER_TABLES) * PAGE_BYTES
