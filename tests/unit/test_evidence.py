"""Evidence from a guest's kernel: its page tables and struct pages are written down, and then found."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import ANON, bits

from orchestrator.guest.evidence import find_evidence, memory_map, read_evidence
from orchestrator.guest.kernel_tables import NotFoundError, VmcoreInfo, parse_vmcoreinfo, walk
from orchestrator.model.frames import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_PGTABLE, KPF_RESERVED
from orchestrator.model.snapshot import I64, U64, Evidence

FRAMES = 4096  # 16 MiB
VMEMMAP, VMALLOC = 0xFFC9_D54C_8000_0000, 0xFF58_9077_8000_0000
LAYOUT = VmcoreInfo(
    root_pfn=1, levels=5, vmalloc=VMALLOC, vmemmap=VMEMMAP, page_bytes=64, lru=8, mapcount=48, refcount=52
)
MODULES = 0xFFFF_FFFF_C000_0000
# As a 6.12 guest wrote it.
VMCOREINFO = b"""\
\x0b\0\0\0\xdc\x0f\0\0\0\0\0\0VMCOREINFO\0\0OSRELEASE=6.12.117+deb13-cloud-amd64
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffffff9f0219c0
SYMBOL(swapper_pg_dir)=ffffffff9ee22000
NUMBER(VMALLOC_START)=0xff58907780000000
SYMBOL(vmemmap)=ffc9d54c80000000
SIZE(page)=64
OFFSET(page._refcount)=52
OFFSET(page.lru)=8
OFFSET(page._mapcount)=48
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456
NUMBER(phys_base)=-398458880
NUMBER(pgtable_l5_enabled)=1
KERNELOFFSET=1c200000
"""


class Memory:
    """A guest's frames by number. Tables are taken from frame 1 on, struct pages from frame 64 on."""

    def __init__(self, layout: VmcoreInfo = LAYOUT) -> None:
        self.layout = layout
        self.frames: dict[int, bytearray] = {1: bytearray(4096)}
        self.flags = np.zeros(FRAMES, dtype=np.uint64)
        self._next = 2
        self.tables = {1}
        pages = FRAMES * layout.page_bytes // 4096
        self.memmap = list(range(64, 64 + pages))
        for number, frame in enumerate(self.memmap):
            self.map(layout.vmemmap + number * 4096, frame)
            self.frames[frame] = bytearray(4096)
        self.flags[: 64 + pages] = bits(KPF_RESERVED)
        for pfn in range(FRAMES):
            self.page(pfn, refcount=1)

    def map(self, address: int, frame: int, *, huge: bool = False) -> None:
        """Map one page (or 2 MiB) in the kernel's half."""
        table = 1
        last = 2 if huge else 1
        for level in range(self.layout.levels, last, -1):
            at = (address >> (12 + 9 * (level - 1)) & 511) * 8
            (entry,) = struct.unpack_from("<Q", self.frames[table], at)
            if not entry:
                entry = self._next << 12 | 0x67
                self.frames[self._next] = bytearray(4096)
                self.tables.add(self._next)
                struct.pack_into("<Q", self.frames[table], at, entry)
                self._next += 1
            table = entry >> 12 & 0xFF_FFFF_FFFF
        at = (address >> (12 + 9 * (last - 1)) & 511) * 8
        struct.pack_into("<Q", self.frames[table], at, frame << 12 | 1 << 63 | (0x1E3 if huge else 0x163))

    def page(self, pfn: int, *, refcount: int, mapcount: int = -1, lru: tuple[int, int] = (0, 0)) -> None:
        """Write the struct page of a frame."""
        number, inside = divmod(pfn * self.layout.page_bytes, 4096)
        page = self.frames[self.memmap[number]]
        struct.pack_into("<QQ", page, inside + self.layout.lru, *lru)
        struct.pack_into("<i", page, inside + self.layout.mapcount, mapcount)
        struct.pack_into("<i", page, inside + self.layout.refcount, refcount)

    def lru(self, pfn: int) -> int:
        """Address of a frame's lru field."""
        return self.layout.vmemmap + pfn * self.layout.page_bytes + self.layout.lru

    def listed(self, *pfns: int, head: int = 0xFF14_17C1_FF40_0000) -> None:
        """A PCP list of free frames."""
        ring = [head, *map(self.lru, pfns), head]
        for pfn, before, after in zip(pfns, ring, ring[2:], strict=False):
            self.page(pfn, refcount=0, lru=(after, before))

    def read(self, pfns: I64) -> tuple[I64, U64]:
        there = [pfn for pfn in pfns.tolist() if pfn in self.frames]
        contents = b"".join(bytes(self.frames[pfn]) for pfn in there)
        return np.array(there, dtype=np.int64), np.frombuffer(contents, dtype="<u8").reshape(-1, 512)

    def evidence(self) -> dict[Evidence, list[int]]:
        """What is found, by kind; without what the kernel needs to map itself."""
        raw = read_evidence(self.read, self.layout, self.flags)
        found = find_evidence(raw, self.flags)
        assert set(np.flatnonzero(found == Evidence.TABLE)) >= self.tables
        assert set(np.flatnonzero(found == Evidence.MEMMAP)) == set(self.memmap)
        rest = {kind: np.flatnonzero(found == kind).tolist() for kind in Evidence if kind}
        rest[Evidence.TABLE] = [pfn for pfn in rest[Evidence.TABLE] if pfn not in self.tables]
        del rest[Evidence.MEMMAP]
        return {kind: pfns for kind, pfns in rest.items() if pfns}


@pytest.fixture(params=[4, 5])
def memory(request: pytest.FixtureRequest) -> Memory:
    if request.param == 5:
        return Memory()
    return Memory(replace(LAYOUT, levels=4, vmalloc=0xFFFF_C900_0000_0000, vmemmap=0xFFFF_EA00_0000_0000))


def test_what_vmcoreinfo_says() -> None:
    assert parse_vmcoreinfo(VMCOREINFO) == replace(LAYOUT, root_pfn=(0x1EE22000 - 398458880) // 4096)
    four = VMCOREINFO.replace(b"l5_enabled)=1", b"l5_enabled)=0")
    assert parse_vmcoreinfo(four).levels == 4


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((b"SYMBOL(vmemmap)", b"SYMBOL(other)"), r"no SYMBOL\(vmemmap\)"),
        ((b"SIZE(page)=64", b"SIZE(page)=0"), "makes no sense"),
        ((b"page.lru)=8", b"page.lru)=7"), "makes no sense"),
        ((b"_refcount)=52", b"_refcount)=99999"), "makes no sense"),
        ((b"vmemmap)=ffc9", b"vmemmap)=00c9"), "makes no sense"),
        ((b"phys_base)=-398458880", b"phys_base)=-999999999"), "makes no sense"),
        ((b"phys_base)=-398458880", b"phys_base)=-0x"), "no NUMBER"),
    ],
)
def test_a_vmcoreinfo_that_cannot_be(change: tuple[bytes, bytes], why: str) -> None:
    assert change[0] in VMCOREINFO
    with pytest.raises(NotFoundError, match=why):
        parse_vmcoreinfo(VMCOREINFO.replace(*change))


@given(st.binary(max_size=300))
def test_junk_is_no_vmcoreinfo(junk: bytes) -> None:
    with pytest.raises(NotFoundError):
        parse_vmcoreinfo(junk)


def test_a_kernel_without_anything_special(memory: Memory) -> None:
    assert memory.evidence() == {}


def test_pages_are_found_where_they_are_mapped(memory: Memory) -> None:
    layout = memory.layout
    memory.map(layout.vmalloc, 2048, huge=True)
    memory.map(MODULES, 3000)
    mappings = walk(memory.read, layout)
    vpn, pfn = mappings.vmalloc(layout)
    assert pfn.tolist() == [*range(2048, 2560), 3000]
    assert (np.diff(vpn[:512]) == 1).all()
    assert sorted(memory.tables) == mappings.tables.tolist()
    begin = layout.page_number(layout.vmemmap)
    assert mappings.between(begin + 1, begin + 3)[1].tolist() == [65, 66]


def test_stacks_are_told_from_other_vmalloc(memory: Memory) -> None:
    base = memory.layout.vmalloc
    for area, frames in ((0, (1000, 1700, 1001, 1500)), (8, (1002, 1003, 1004)), (13, range(1010, 1014))):
        for page, frame in enumerate(frames):
            memory.map(base + (area + page) * 4096, frame)
    assert memory.evidence() == {
        Evidence.KERNEL_STACK: [1000, 1001, 1500, 1700],
        Evidence.VMALLOC: [1002, 1003, 1004, *range(1010, 1014)],  # three pages; four, but not aligned
    }


def test_free_frames_on_cpu_lists(memory: Memory) -> None:
    memory.listed(1000, 1500, 1300)
    memory.listed(2000, head=0xFF14_17C1_FF40_1000)  # a list of one
    memory.listed(2008, head=0xFF14_17C1_FF40_2000)  # a chunk of order 3
    for pfn in range(2009, 2016):
        memory.page(pfn, refcount=0)
    poison = (0xDEAD_0000_0000_0100, 0xDEAD_0000_0000_0122)
    memory.page(3000, refcount=0, lru=poison)  # taken off its list
    memory.page(3001, refcount=0, lru=(0xDEAD_0000_0000_0100,) * 2)
    memory.page(3002, refcount=0)  # behind the head of something larger
    memory.page(3003, refcount=0, lru=(memory.lru(64) | 1, 0))  # the tail of a compound page
    memory.page(3004, refcount=0, lru=(memory.lru(1000), memory.lru(1000)))  # which does not point back
    assert memory.evidence() == {Evidence.CPU_LIST: sorted([1000, 1500, 1300, 2000, *range(2008, 2016)])}


def test_pinned_memory(memory: Memory) -> None:
    for pfn, references in ((1000, 1025), (1001, 1023), (1002, 1024), (1003, -1)):
        memory.flags[pfn] = ANON
        memory.page(pfn, refcount=references)
    memory.page(1004, refcount=5000)  # not a user's
    assert memory.evidence() == {Evidence.PINNED: [1000, 1002]}


POISON = 0xDEAD << 48  # CONFIG_ILLEGAL_POINTER_VALUE on x86-64
# What page_pool writes where lru.next is: PP_SIGNATURE, since 6.16 with an index (netmem_set_dma_index(),
# net/core/netmem_priv.h), and bit 1 of a page of the emergency reserves (page_is_pfmemalloc()).
MARKS = {
    "5.14 to 6.15": [POISON + 0x40, POISON + 0x42],
    "from 6.16 on": [
        POISON + 0x40 + (index << 7) + pfmemalloc
        for index in (0, 1, 2, 3, 0x55, 1 << 24, (1 << 24) + 1, 1 << 25, 1 << 31, (1 << 32) - 1)
        for pfmemalloc in (0, 2)
    ],
}
NO_MARKS = [
    *(POISON + 0x100, POISON + 0x122),  # LIST_POISON1 and 2, include/linux/poison.h
    *(
        POISON + 0x800,
        POISON + 0x801,
        POISON + 0xEB9F,
    ),  # SKB_LIST_POISON_NEXT, NET_PTR_POISON, BPF_PTR_POISON
    *(POISON, POISON + 0x44, POISON + 0x48, POISON + 0x60, POISON + (3 << 7)),
    *(POISON + 0x40 + (1 << 39), POISON + 0x40 + (1 << 47)),  # above an index of 32 bits
    *(0x40, 0xFFFF_8880_0000_0040, 0xFFC9_D54C_8000_0040, 0xDEAF_0000_0000_0040),
]


@pytest.mark.parametrize("kernel", MARKS)
def test_buffers_of_network_drivers(memory: Memory, kernel: str) -> None:
    marks = MARKS[kernel]
    for pfn, mark in enumerate([*marks, *NO_MARKS], 1000):
        memory.page(pfn, refcount=1, lru=(mark, 7))
    assert memory.evidence() == {Evidence.NETWORK: list(range(1000, 1000 + len(marks)))}


def test_the_tails_of_a_buffer_are_of_it(memory: Memory) -> None:
    """A pool of a higher order marks the head of each chunk."""
    for pfn, lru in ((1000, POISON + 0x40 + (7 << 7)), (1008, POISON + 0x100)):
        memory.page(pfn, refcount=1, lru=(lru, 7))
        memory.flags[pfn] = bits(KPF_COMPOUND_HEAD)
        for tail in range(pfn + 1, pfn + 4):
            memory.page(tail, refcount=0, lru=(memory.layout.vmemmap + pfn * 64 | 1, 0))
            memory.flags[tail] = bits(KPF_COMPOUND_TAIL)
    assert memory.evidence() == {Evidence.NETWORK: [1000, 1001, 1002, 1003]}


def test_roots_of_processes_that_have_no_flag(memory: Memory) -> None:
    pgd, p4d, other = 1000, 1001, 1002
    memory.frames[pgd] = bytearray(memory.frames[1])
    struct.pack_into("<Q", memory.frames[pgd], 0, p4d << 12 | 0x67)
    struct.pack_into(
        "<Q", memory.frames[pgd], 511 * 8, struct.unpack_from("<Q", memory.frames[1], 511 * 8)[0]
    )
    memory.frames[other] = bytearray(memory.frames[1])  # but for one entry it would be
    struct.pack_into("<Q", memory.frames[other], 500 * 8, 0x1063)
    used = next(slot for slot in range(256, 512) if any(memory.frames[1][slot * 8 : slot * 8 + 8]))
    struct.pack_into("<Q", memory.frames[other], used * 8, 0x9999063)
    expected = [pgd, p4d] if memory.layout.levels == 5 else [pgd]
    assert memory.evidence() == {Evidence.TABLE: expected}


def test_what_each_frame_of_the_memory_map_describes(memory: Memory) -> None:
    raw = read_evidence(memory.read, memory.layout, memory.flags)
    found = memory_map(raw, FRAMES)
    assert (found.pfn.tolist(), found.frames) == (memory.memmap, 64)
    assert found.first.tolist() == list(range(0, FRAMES, 64))
    assert len(memory_map(None, FRAMES).pfn) == 0


def test_a_frame_that_qemu_does_not_have(memory: Memory) -> None:
    """The first MiB is never read: whatever lies there is simply not known."""
    memory.listed(1000)
    memory.flags[64] = 0
    del memory.frames[memory.memmap[1000 * 64 // 4096]]
    raw = read_evidence(memory.read, memory.layout, memory.flags)
    assert find_evidence(raw, memory.flags)[1000] == Evidence.NONE


def test_tables_that_make_no_sense(memory: Memory) -> None:
    memory.map(memory.layout.vmemmap + 4096, memory.memmap[0])
    with pytest.raises(NotFoundError, match="same frame"):
        read_evidence(memory.read, memory.layout, memory.flags)
    del memory.frames[1]
    with pytest.raises(NotFoundError, match="QEMU has no page"):
        read_evidence(memory.read, memory.layout, memory.flags)


def test_a_guest_that_shows_endless_tables() -> None:
    """Every entry of every table points at the same table: 512 times more at each level."""
    full = np.full(512, 1 << 12 | 0x63, dtype="<u8").tobytes()
    memory = Memory()
    memory.frames = {1: bytearray(full)}
    with pytest.raises(NotFoundError, match="too many"):
        walk(memory.read, LAYOUT)


def test_a_guest_that_maps_endless_memory(memory: Memory) -> None:
    mappings = walk(memory.read, memory.layout)
    endless = replace(mappings, pages=np.full(len(mappings.vpn), 1 << 27, dtype=np.int64))
    with pytest.raises(NotFoundError, match="map too much"):
        endless.between(0, 1 << 45)


def test_a_marked_table_stays_what_it_is(memory: Memory) -> None:
    memory.flags[1000] = bits(KPF_PGTABLE)
    assert memory.evidence() == {}
