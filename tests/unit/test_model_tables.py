from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_decoder import decode as decode_slowly
from synthetic import (
    DIRECT_MAP,
    DIRECT_MAP_PTI,
    KERNEL_LINK,
    SWAPPED,
    USER_CODE,
    USER_DATA,
    USER_HUGE,
    USER_LINK,
    USER_UNACCESSED,
    USER_ZERO,
    Guest,
    entry,
    sparse_guest,
)

from orchestrator.model.frames import KPF_MMAP, KPF_PGTABLE, KPF_RESERVED
from orchestrator.model.tables import Tables, TableState, decode_tables, needed_tables


class Decoded:
    """Decoded tables, looked up by frame."""

    def __init__(self, guest: Guest) -> None:
        snapshot = guest.snapshot()
        assert snapshot.faults() == []
        self.tables: Tables = decode_tables(snapshot)
        self._index = {pfn: i for i, pfn in enumerate(snapshot.table_pfn.tolist())}

    def level(self, pfn: int) -> int:
        return int(self.tables.level[self._index[pfn]])

    def state(self, pfn: int) -> TableState:
        return TableState(int(self.tables.state[self._index[pfn]]))

    def kernel(self, pfn: int) -> bool:
        return bool(self.tables.kernel[self._index[pfn]])

    def count(self, name: str, pfn: int) -> int:
        return int(getattr(self.tables, name)[self._index[pfn]])

    def parent(self, pfn: int) -> int:
        index = int(self.tables.parent[self._index[pfn]])
        return -1 if index < 0 else int(self.tables.pfn[index])


def pte_table(guest: Guest) -> int:
    return guest.table({3: entry(guest.anon(), USER_DATA)})


@pytest.mark.parametrize("top", [3, 4, 5])
def test_a_level_is_the_distance_from_a_mapped_page(top: int) -> None:
    guest = Guest()
    leaf = pte_table(guest)
    guest.chain(leaf, top)
    tables = Decoded(guest).tables
    by_frame = dict(zip(tables.pfn.tolist(), tables.level.tolist(), strict=True))
    assert [by_frame[leaf + above] for above in range(top)] == list(range(1, top + 1))


@pytest.mark.parametrize("top", [3, 4, 5])
def test_an_empty_pmd_table_is_no_pte_table(top: int) -> None:
    """What PT_RECLAIM leaves: PMD tables with nothing below, beside one that maps something."""
    guest = Guest()
    busy, hollow = guest.chain(pte_table(guest), 2), guest.table()
    root = guest.upper({0: busy, 7: hollow})
    for _ in range(top - 3):
        root = guest.upper({0: root})
    decoded = Decoded(guest)
    assert (decoded.level(hollow), decoded.state(hollow)) == (2, TableState.EMPTY)
    assert (decoded.parent(hollow), decoded.level(root)) == (decoded.parent(busy), top)


def test_a_process_without_any_mapping_is_placed_by_the_others() -> None:
    """All its PMD tables are empty, so its depth alone would make them PTE tables."""
    guest = Guest()
    guest.chain(pte_table(guest), 4)
    hollow_pmd = guest.table()
    hollow_root = guest.chain(hollow_pmd, 3)
    decoded = Decoded(guest)
    assert decoded.level(hollow_root) == 4
    assert decoded.level(hollow_pmd) == 2


def test_only_empty_pte_tables_and_nothing_to_compare_with() -> None:
    guest = Guest()
    leaves = [guest.table() for _ in range(4)]
    root = guest.upper({1: guest.upper(dict(enumerate(leaves)))})
    decoded = Decoded(guest)
    assert decoded.level(root) == 3
    assert {decoded.level(leaf) for leaf in leaves} == {1}


def test_an_empty_table_that_nobody_points_at_has_no_level() -> None:
    guest = Guest()
    orphan = guest.table()
    guest.chain(pte_table(guest), 4)
    decoded = Decoded(guest)
    assert (decoded.level(orphan), decoded.parent(orphan)) == (0, -1)


@pytest.mark.parametrize("mapping", [DIRECT_MAP, DIRECT_MAP_PTI])
def test_the_direct_map_of_page_tables_is_not_taken_for_links(mapping: int) -> None:
    guest = Guest()
    leaves = [pte_table(guest) for _ in range(3)]
    identity = guest.table({slot: entry(leaf, mapping) for slot, leaf in enumerate(leaves)})
    guest.chain(identity, 3)
    decoded = Decoded(guest)
    assert [decoded.level(leaf) for leaf in leaves] == [1, 1, 1]
    assert [decoded.parent(leaf) for leaf in leaves] == [-1, -1, -1]
    assert (decoded.level(identity), decoded.kernel(identity), decoded.count("links", identity)) == (
        1,
        True,
        0,
    )
    assert not decoded.kernel(leaves[0])


def test_pti_marks_the_user_half_of_a_pgd_not_executable() -> None:
    guest = Guest()
    pud = guest.chain(pte_table(guest), 3)
    pgd = guest.upper({0: pud}, link=USER_LINK | 1 << 63)
    assert Decoded(guest).level(pgd) == 4


def test_a_link_to_an_unread_table_still_makes_an_upper_table() -> None:
    guest = Guest()
    unread = guest.frame(KPF_PGTABLE)
    table = guest.table({0: entry(unread, USER_LINK)})
    assert Decoded(guest).level(table) == 2


def test_kernel_pmd_tables_point_at_unmarked_pte_tables_on_6_12() -> None:
    """pte_alloc_one_kernel() ran no constructor; its links carry _PAGE_USER like everybody's."""
    guest = Guest()
    pmd = guest.table({0: entry(guest.frame(), USER_LINK), 1: entry(guest.frame(KPF_RESERVED), KERNEL_LINK)})
    guest.upper({5: pmd})
    decoded = Decoded(guest)
    assert (decoded.level(pmd), decoded.kernel(pmd), decoded.count("links", pmd)) == (2, True, 2)


def test_writable_code_of_a_process_is_no_link() -> None:
    """A JIT's pages have the very bits of _PAGE_TABLE; that they are mapped gives them away."""
    guest = Guest()
    jit = guest.table({0: entry(guest.anon(), USER_LINK), 1: entry(guest.frame(KPF_MMAP), USER_LINK)})
    decoded = Decoded(guest)
    assert (decoded.level(jit), decoded.kernel(jit), decoded.count("links", jit)) == (1, False, 0)


def test_empty_vmalloc_tables_are_the_kernels() -> None:
    """On 7.x they look like a process's empty tables; the half of the PGD they hang from decides."""
    guest = Guest()
    own, vmalloc = guest.table(), guest.table()
    mapped = guest.table({0: entry(guest.frame(), DIRECT_MAP)})
    guest.upper({0: guest.chain(pte_table(guest), 3), 1: guest.chain(own, 3), 400: guest.chain(vmalloc, 3),
                 401: guest.upper({0: guest.upper({0: mapped})})})  # fmt: skip
    decoded = Decoded(guest)
    assert (decoded.level(own), decoded.level(vmalloc)) == (1, 1)
    assert (decoded.kernel(own), decoded.kernel(vmalloc), decoded.kernel(mapped)) == (False, True, True)


def test_an_empty_table_beside_kernel_mappings_is_the_kernels() -> None:
    guest = Guest()
    hollow, mapped = guest.table(), guest.table({0: entry(guest.frame(), DIRECT_MAP)})
    guest.upper({0: hollow, 1: mapped})
    assert Decoded(guest).kernel(hollow)


def test_counts_and_states() -> None:
    guest = Guest(4096)
    guest._next_frame = 1
    zero = guest.zero()
    huge_zero = 1024
    guest.flags[huge_zero : huge_zero + 512] = 1 << 24 | 1 << 22
    zeros = guest.table({0: entry(zero, USER_ZERO), 511: entry(zero, USER_ZERO)})
    mixed = guest.table(
        {
            0: entry(zero, USER_ZERO),
            1: entry(guest.anon(), USER_DATA),
            2: entry(guest.anon(), USER_UNACCESSED),
            9: SWAPPED,
        }
    )
    swapped = guest.table({4: SWAPPED})
    thp = guest.table({0: entry(huge_zero, USER_HUGE), 1: entry(2048, USER_HUGE)})
    huge_zeros = guest.table({0: entry(huge_zero, USER_HUGE)})
    guest.upper({0: guest.upper({0: zeros, 1: mixed, 2: swapped}), 1: thp, 2: huge_zeros})
    decoded = Decoded(guest)
    assert decoded.state(zeros) == TableState.ZERO_ONLY
    assert decoded.count("zero_page", zeros) == 2
    assert decoded.state(mixed) == TableState.VALID
    names = ("present", "zero_page", "other_nonzero", "accessed", "huge")
    assert [decoded.count(name, mixed) for name in names] == [3, 1, 1, 2, 0]
    assert (decoded.level(swapped), decoded.state(swapped)) == (1, TableState.VALID)
    assert [decoded.count(name, thp) for name in names] == [2, 1, 0, 2, 2]
    assert (decoded.level(thp), decoded.level(huge_zeros)) == (2, 2)
    assert decoded.state(huge_zeros) == TableState.ZERO_ONLY


def test_bit_7_of_a_pte_is_pat_and_no_huge_page() -> None:
    guest = Guest()
    device = guest.table({slot: entry(0xFD000 + slot, USER_DATA | 1 << 7) for slot in range(8)})
    guest.chain(device, 4)
    decoded = Decoded(guest)
    assert (decoded.level(device), decoded.count("huge", device)) == (1, 0)


def test_tables_on_a_cycle_have_no_level() -> None:
    """A torn snapshot can hold anything; it must neither hang nor be believed."""
    guest = Guest()
    one, two = guest.table(), guest.table()
    guest.tables[one] = {0: entry(two, USER_LINK)}
    guest.tables[two] = {0: entry(one, USER_LINK), 1: entry(two, USER_LINK)}
    decoded = Decoded(guest)
    assert [decoded.level(one), decoded.level(two)] == [0, 0]


def test_no_tables_at_all() -> None:
    tables = decode_tables(Guest(16).snapshot())
    assert len(tables) == 0
    assert tables.counts().sum() == 0


def test_sparse_50_gib() -> None:
    tables = decode_tables(sparse_guest())
    expected = np.zeros((6, 4), dtype=np.int64)
    expected[1, TableState.EMPTY], expected[2, TableState.VALID], expected[3, TableState.VALID] = (
        25_600,
        50,
        1,
    )
    assert tables.counts().tolist() == expected.tolist()


class Grower:
    """Draws small trees of tables and keeps the true level of each."""

    def __init__(self, draw: st.DrawFn, *, torn: bool) -> None:
        self.draw, self.torn = draw, torn
        self.guest = Guest(2048)
        self.guest._next_frame = 16
        self.truth: dict[int, int] = {}
        self.top = 0  # level of the roots

    def grow(self, level: int, leaves: list[int], *, sure: bool) -> int:
        """A table and what is below it; `sure`: one path ends in a PTE table with an entry."""
        last = 255 if level == self.top else 511  # the upper half of a root is the kernel's
        slots = self.draw(st.lists(st.integers(0, last), min_size=int(sure), max_size=3, unique=True))
        entries = {
            slot: self._entry(level, leaves, sure=sure and number == 0) for number, slot in enumerate(slots)
        }
        if self.torn and level > 1 and self.draw(st.integers(0, 3)) == 0:
            entries.update(self._stray(level))
        pfn = self.guest.table(entries)
        self.truth[pfn] = level
        return pfn

    def _entry(self, level: int, leaves: list[int], *, sure: bool) -> int:
        if level == 1:
            return self.draw(st.sampled_from(leaves))
        if level == 2 and not sure and self.draw(st.booleans()):
            return entry(512 * self.draw(st.integers(0, 3)), USER_HUGE)
        return entry(self.grow(level - 1, leaves, sure=sure), USER_LINK)

    def _stray(self, level: int) -> dict[int, int]:
        lower = [pfn for pfn, true in self.truth.items() if true < level]
        if not lower:
            return {}
        return {self.draw(st.integers(0, 511)): entry(self.draw(st.sampled_from(lower)), USER_LINK)}


@st.composite
def address_spaces(draw: st.DrawFn, *, torn: bool = False) -> tuple[Guest, dict[int, int]]:
    """A guest of a few small processes, and the true level of each of its tables.

    Every process maps something, as a live one does, through huge pages, swap and zero pages as well.
    `torn` adds pointers to arbitrary lower tables: what a reading of a running guest can look like.
    """
    grower = Grower(draw, torn=torn)
    guest, truth = grower.guest, grower.truth
    zero, reserved, plain = guest.zero(), guest.frame(KPF_RESERVED), guest.frame()
    user_leaves = [
        *(entry(guest.anon(), USER_DATA), entry(guest.anon(), USER_UNACCESSED), entry(zero, USER_ZERO)),
        *(SWAPPED, entry(reserved, USER_CODE), entry(guest.anon(), USER_LINK), entry(1 << 30, USER_DATA)),
    ]
    kernel_leaves = [entry(plain, DIRECT_MAP), entry(reserved, DIRECT_MAP_PTI), entry(zero, DIRECT_MAP)]

    top = grower.top = draw(st.integers(3, 5))
    kernel_root = {}
    if draw(st.booleans()):
        kernel_root[511] = entry(grower.grow(top - 1, kernel_leaves, sure=True), USER_LINK)
    for _ in range(draw(st.integers(1, 3))):
        guest.tables[grower.grow(top, user_leaves, sure=True)].update(kernel_root)
    if draw(st.booleans()):
        truth[guest.table()] = 0
    mapping = draw(st.sampled_from([DIRECT_MAP, DIRECT_MAP_PTI]))
    truth[guest.table({slot: entry(pfn, mapping) for slot, pfn in zip(range(512), truth, strict=False)})] = 1
    return guest, truth


@pytest.mark.slow
@given(address_spaces())
def test_levels_of_consistent_snapshots_are_the_true_ones(case: tuple[Guest, dict[int, int]]) -> None:
    guest, truth = case
    tables = decode_tables(guest.snapshot())
    assert dict(zip(tables.pfn.tolist(), tables.level.tolist(), strict=True)) == truth


@given(st.booleans().flatmap(lambda torn: address_spaces(torn=torn)))
def test_agrees_with_the_slow_decoder(case: tuple[Guest, dict[int, int]]) -> None:
    snapshot = case[0].snapshot()
    tables, slow = decode_tables(snapshot), decode_slowly(snapshot)
    states = {TableState.EMPTY: "empty", TableState.ZERO_ONLY: "zero", TableState.VALID: "valid"}
    for i, table in enumerate(slow):
        assert int(tables.level[i]) == table.level
        assert int(tables.parent[i]) == table.parent
        assert bool(tables.kernel[i]) == table.kernel
        assert states[TableState(int(tables.state[i]))] == table.state
        fast = (tables.present[i], tables.huge[i], tables.zero_page[i], tables.other_nonzero[i])
        assert tuple(map(int, fast)) == (table.present, table.huge, table.zero, table.other)
        assert (int(tables.accessed[i]), int(tables.links[i])) == (table.accessed, table.links)


@given(address_spaces(), st.integers(1, 7))
def test_the_size_of_chunks_changes_nothing(case: tuple[Guest, dict[int, int]], chunk: int) -> None:
    snapshot = case[0].snapshot()
    whole = decode_tables(snapshot)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.model.entries._CHUNK_ENTRIES", chunk)
        pieces = decode_tables(snapshot)
    for name in ("level", "state", "present", "zero_page", "accessed", "links", "kernel", "parent"):
        assert getattr(pieces, name).tolist() == getattr(whole, name).tolist()


@pytest.mark.parametrize("gib", [1, 3])
def test_a_dense_gib_needs_two_mib_of_pte_tables(gib: int) -> None:
    pages = np.ones(gib << 18, dtype=np.bool_)
    assert needed_tables(pages).tolist() == [0, 512 * gib, gib, 1, 1]
    assert needed_tables(pages)[1] * 4096 == 2 * gib << 20
    assert needed_tables(pages, levels=5).tolist() == [0, 512 * gib, gib, 1, 1, 1]


@given(st.lists(st.integers(0, (1 << 36) - 1), max_size=40), st.integers(1, 5))
def test_needed_tables_are_the_distinct_prefixes(pages: list[int], levels: int) -> None:
    expected = [0, *(len({page >> 9 * level for page in pages}) for level in range(1, levels + 1))]
    assert needed_tables(np.array(sorted(pages), dtype=np.int64), levels=levels).tolist() == expected


def test_needed_tables_takes_sorted_pages_only() -> None:
    with pytest.raises(ValueError, match="not sorted"):
        needed_tables(np.array([513, 1], dtype=np.int64))
    with pytest.raises(ValueError, match="6 levels"):
        needed_tables(np.array([1], dtype=np.int64), levels=6)
