"""Page tables counted from regions and mappings, against what can be counted on the fingers."""

from __future__ import annotations

import array
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.host.mappings import Mapping, parse_mappings
from orchestrator.host.page_tables import Count
from orchestrator.host.pagemap import IS_HUGE, IS_PRESENT, IS_SWAPPED, IS_ZERO

PAGE, TABLE, GIB = 4096, 2 << 20, 1 << 30
TOP = 1 << 47
MAPS = """\
7f0000000000-7f0040000000 rw-p 00000000 00:00 0
7f0040000000-7f0040001000 r--p 00000000 fd:00 12                         /lib/a b.so (deleted)
7f0040200000-7f0040400000 rw-s 00000000 00:01 7                          /dev/zero (deleted)
7f0040400000-7f0040600000 rw-p 00000000 00:06 3                          /dev/zero
7f0080000000-7f00c0000000 rw-s 00000000 00:0f 9                          /anon_hugepage (deleted)
7f00c0000000-7f0100000000 rw-s 00000000 00:0d 5                          anon_inode:[vfio-device]
7ffd00000000-7ffd00004000 r--p 00000000 00:00 0                          [vvar]
no line of maps
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def anonymous(start: int, end: int) -> Mapping:
    return Mapping(start, end, deposits=True, hugetlb=0, key="", name="")


def count(mappings: Sequence[Mapping], *regions: tuple[int, int, int]) -> Count:
    found = Count(mappings)
    # In pieces, as they come.
    for start in range(0, len(regions), 2):
        flat = [word for region in regions[start : start + 2] for word in region]
        found.add(memoryview(array.array("Q", flat)))
    found.close()
    return found


def levels(found: Count) -> tuple[int, int, int, int]:
    return found.pte, found.pmd, found.pud, found.p4d


def test_mappings_are_read_from_maps() -> None:
    private, library, shared, zero, huge, device, vvar = parse_mappings(MAPS, {"00:0f": GIB})
    assert private == anonymous(0x7F0000000000, 0x7F0040000000)
    assert (library.deposits, library.key, library.name) == (False, "", "/lib/a b.so (deleted)")
    assert (shared.deposits, shared.key) == (False, "00:01:7")
    assert (zero.deposits, zero.key) == (True, "")
    assert (huge.hugetlb, huge.key) == (GIB, "00:0f:9")
    assert (device.name, vvar.name) == ("anon_inode:[vfio-device]", "[vvar]")


def test_a_table_that_mappings_share_counts_once() -> None:
    mappings = [anonymous(0, PAGE), anonymous(PAGE, 3 * PAGE), anonymous(TABLE, 2 * TABLE)]
    found = count(mappings, (0, 2 * PAGE, IS_PRESENT), (2 * PAGE, 3 * PAGE, IS_SWAPPED))
    assert levels(found) == (1, 1, 1, 1)
    assert found.sparse == 1


def test_upper_levels_are_counted_by_range() -> None:
    page = (IS_PRESENT,)
    found = count(
        [anonymous(0, TOP)],
        (0, PAGE, *page),
        (GIB - PAGE, GIB + PAGE, *page),  # two tables, in two PMD tables
        (600 * GIB, 600 * GIB + PAGE, *page),
        (TOP - PAGE, TOP, *page),
    )
    assert levels(found) == (5, 4, 3, 1)


def test_a_dense_range_needs_a_table_for_2_mib() -> None:
    found = count([anonymous(0, 3 * GIB)], (PAGE, 2 * GIB + PAGE, IS_PRESENT))
    assert levels(found) == (1025, 3, 1, 1)
    assert (found.sparse, found.zero_only) == (1, 0)


def test_zero_pages() -> None:
    zero = IS_PRESENT | IS_ZERO
    found = count(
        [anonymous(0, GIB)],
        (0, 3 * TABLE, zero),
        (3 * TABLE, 3 * TABLE + PAGE, IS_PRESENT),
        (3 * TABLE + PAGE, 5 * TABLE, zero),
    )
    assert (found.pte, found.zero_only, found.sparse) == (5, 4, 0)


def test_deposits_are_of_anonymous_huge_pages_only() -> None:
    huge = IS_PRESENT | IS_HUGE
    private, shmem = (
        anonymous(0, GIB),
        Mapping(GIB, 2 * GIB, deposits=False, hugetlb=0, key="0:1:2", name="x"),
    )
    found = count(
        [private, shmem],
        (0, TABLE + 5 * PAGE, huge),  # a piece ended in the second huge page
        (TABLE + 5 * PAGE, 2 * TABLE, huge),
        (4 * TABLE, 4 * TABLE + PAGE, IS_PRESENT),
        (GIB, GIB + 8 * TABLE, huge),
    )
    assert (found.deposited, found.pte, found.pmd) == (2, 1, 2)
    assert found.shared == {}


def test_hugetlbfs_has_no_last_level_and_with_1_gib_no_pmd_tables() -> None:
    huge = IS_PRESENT | IS_HUGE
    two = Mapping(0, 2 * GIB, deposits=True, hugetlb=TABLE, key="", name="")
    one = Mapping(512 * GIB, 514 * GIB, deposits=False, hugetlb=GIB, key="", name="")
    found = count([two, one], (0, 2 * GIB, huge), (512 * GIB, 514 * GIB, huge))
    assert levels(found) == (0, 2, 2, 1)
    assert found.deposited == 0


def test_shared_memory_is_counted_by_object() -> None:
    a = Mapping(0, 3 * TABLE, deposits=False, hugetlb=0, key="0:1:2", name="a")
    b = Mapping(3 * TABLE, 9 * TABLE, deposits=False, hugetlb=0, key="0:1:3", name="b")
    again = Mapping(GIB, 2 * GIB, deposits=False, hugetlb=0, key="0:1:2", name="a")
    found = count(
        [a, b, again],
        (0, PAGE, IS_PRESENT),
        (2 * PAGE, 4 * TABLE, IS_PRESENT),  # over the end of the mapping
        (GIB, GIB + PAGE, IS_PRESENT),
    )
    assert found.shared == {"0:1:2": ("a", 4), "0:1:3": ("b", 1)}


def test_what_devices_may_need_is_bounded() -> None:
    (device,) = parse_mappings(MAPS.splitlines()[5], {})
    near = anonymous(device.end, device.end + GIB)
    assert count([device, near]).unseen() == 512 + 1 + 1
    # The scan passes over them; pages of others in the same 2 MiB show that the table is counted already.
    shifted = device._replace(start=device.start + PAGE, end=device.end + PAGE)
    beside = anonymous(device.start, device.start + PAGE)
    assert count([beside, shifted], (device.start, device.start + PAGE, IS_PRESENT)).unseen() == 512 + 2 + 1


def test_what_was_mapped_meanwhile_counts_as_well() -> None:
    assert count([anonymous(0, PAGE)], (0, PAGE, IS_PRESENT), (GIB, GIB + PAGE, IS_PRESENT)).pte == 2


@given(
    st.lists(st.integers(0, 6 * 512 * 512), min_size=1, max_size=60, unique=True).map(sorted),
    st.sampled_from([IS_PRESENT, IS_SWAPPED, IS_PRESENT | IS_ZERO]),
)
def test_pages_are_counted_as_sets_count_them(pages: list[int], category: int) -> None:
    """Whatever the pages, and wherever runs of them are cut."""
    runs: list[list[int]] = []
    for page in pages:
        if runs and runs[-1][1] == page and page % 3:  # a run may be cut
            runs[-1][1] = page + 1
        else:
            runs.append([page, page + 1])
    found = count([anonymous(0, 4 * GIB)], *((a * PAGE, b * PAGE, category) for a, b in runs))
    tables = [page // 512 for page in pages]
    assert found.pte == len(set(tables))
    assert found.pmd == len({table >> 9 for table in tables})
    assert found.sparse == sum(tables.count(table) <= 8 for table in set(tables))
    assert found.zero_only == (found.pte if category & IS_ZERO else 0)
