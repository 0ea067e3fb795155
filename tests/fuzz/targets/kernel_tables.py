"""A guest's own page tables, struct pages and VMCOREINFO, walked from outside: all of it is the guest's to write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from orchestrator.guest.evidence import find_deposits, find_evidence, memory_map, read_evidence
from orchestrator.guest.kernel_tables import NotFoundError, parse_vmcoreinfo
from orchestrator.model.snapshot import I64, U64
from targets.base import TARGETS, Target

_FRAMES = 512
_SPARSE = np.dtype([("at", "<u4"), ("value", "<u8")])
VMCOREINFO = (
    b"SYMBOL(swapper_pg_dir)=ffffffff81001000\nNUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\n"
    b"NUMBER(VMALLOC_START)=0xffffc90000000000\nSYMBOL(vmemmap)=ffffea0000000000\nSIZE(page)=64\n"
    b"OFFSET(page.lru)=8\nOFFSET(page._mapcount)=48\nOFFSET(page._refcount)=52\n"
)
_SPLIT = b"\n@@\n"


@TARGETS.register("kernel-tables")
class KernelTables(Target):
    """An input is VMCOREINFO, a line `@@`, and words of memory: place (u4) and value (u8), the rest of it is 0."""

    name: ClassVar = "kernel-tables"
    executions: ClassVar = 5_000
    most_bytes: ClassVar = 4_000
    seconds: ClassVar = 20.0
    tokens: ClassVar = (
        "SYMBOL(vmemmap)=",
        "NUMBER(pgtable_l5_enabled)=1",
        "SIZE(page)=32",
        "NUMBER(phys_base)=-4096",
    )

    def seeds(self) -> Iterator[bytes]:
        root = 0x1001
        links = [
            (root % _FRAMES * 512 + slot, (to << 12) | 0x63)
            for slot, to in ((468, 20), (400, 21), (511, 22), (256, 23))
        ]
        links += [(20 * 512, 30 << 12 | 0x63), (30 * 512, 31 << 12 | 0x63), (31 * 512, 40 << 12 | 0x63)]
        links += [
            (31 * 512 + 1, 41 << 12 | 0x63),
            (21 * 512, 1 << 12 | 0xE3),
            (40 * 512 + 3, (1 << 32) | 0xFFFFFFFF),
        ]
        yield VMCOREINFO + _SPLIT + np.array(links, dtype=_SPARSE).tobytes()
        yield (
            VMCOREINFO.replace(b"enabled)=0", b"enabled)=1")
            + _SPLIT
            + np.array(links, dtype=_SPARSE).tobytes()
        )

    def feed(self, data: bytes) -> None:
        info, _, words = data.partition(_SPLIT)
        memory = np.zeros((_FRAMES, 512), dtype=np.uint64)
        sparse = np.frombuffer(words[: len(words) // _SPARSE.itemsize * _SPARSE.itemsize], dtype=_SPARSE)
        memory.reshape(-1)[sparse["at"] % memory.size] = sparse["value"]
        flags = memory[-1].copy() & np.uint64((1 << 48) - 1)
        flags = np.where(np.arange(_FRAMES) % 3 == 0, flags, 0).astype(np.uint64)

        def read(pfns: I64) -> tuple[I64, U64]:
            # What QEMU has no page for is left out; frames of this guest repeat beyond its few.
            inside = pfns[(pfns >= 0) & (pfns < 1 << 20)]
            return inside, memory[inside % _FRAMES]

        try:
            raw = read_evidence(read, parse_vmcoreinfo(info), flags)
        except NotFoundError:
            return
        assert len(find_evidence(raw, flags)) == len(flags)
        memory_map(raw, len(flags))
        tables = np.flatnonzero(flags >> np.uint64(26) & np.uint64(1)).astype(np.int64)
        found, entries = read(tables)
        find_deposits(raw, flags, found, entries)
