"""Patterns in page tables: when they are seen, and what is advised."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.audit.diagnoses import DIAGNOSES, LEAST_BYTES, Kernel
from orchestrator.audit.reading import Advice, Amount, ProcessReading, SharedMemory

MIB = 1 << 20
OLD, NEW, UNKNOWN = (
    Kernel("6.1", pt_reclaim=False),
    Kernel("7.3", pt_reclaim=True),
    Kernel("6.9", pt_reclaim=None),
)
PLAIN = ProcessReading(
    pid=10,
    started_ticks=1,
    comm="server",
    user=0,
    unit="",
    virtual_bytes=1 << 40,
    resident_bytes=1 << 30,
    swapped_bytes=0,
    hugetlb_bytes=0,
    page_table_bytes=200 * MIB,
    needed=Amount(100 * MIB),
    deposited=Amount(0),
    unused=Amount(0),
    zero_only=Amount(0),
    sparse=Amount(0),
)


def find(diagnosis: str, *processes: ProcessReading, kernel: Kernel = OLD) -> list[Advice]:
    return list(DIAGNOSES[diagnosis].find(processes, kernel))


@pytest.mark.parametrize(
    ("diagnosis", "amount"),
    [("empty", "unused"), ("sparse", "sparse"), ("zero-page", "zero_only"), ("deposited", "deposited")],
)
def test_what_is_large_enough_is_found(diagnosis: str, amount: str) -> None:
    large = replace(PLAIN, **{amount: Amount(LEAST_BYTES)})  # type: ignore[arg-type]  # a field of amounts
    (found,) = find(diagnosis, PLAIN, large)
    assert (found.diagnosis, found.pids, found.amount) == (diagnosis, (10,), LEAST_BYTES)
    assert "1 MiB" in found.what
    assert found.source
    assert find(diagnosis, replace(PLAIN, **{amount: Amount(LEAST_BYTES - 1)})) == []  # type: ignore[arg-type]  # as above
    assert find(diagnosis, replace(PLAIN, **{amount: Amount.missing("why")})) == []  # type: ignore[arg-type]  # as above


def test_every_diagnosis_is_tried() -> None:
    assert DIAGNOSES.names() == ["deposited", "empty", "shared", "sparse", "zero-page"]


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (OLD, "boot a kernel with CONFIG_PT_RECLAIM (6.14 or later): it frees at most 100 MiB"),
        (NEW, "this kernel (CONFIG_PT_RECLAIM) then frees tables"),
        (UNKNOWN, "grep PT_RECLAIM /boot/config-6.9"),
    ],
)
def test_advice_for_empty_tables_depends_on_the_kernel(kernel: Kernel, words: str) -> None:
    (found,) = find("empty", replace(PLAIN, unused=Amount(100 * MIB)), kernel=kernel)
    assert found.next[0] == "restart process 10   (frees all of it)"
    assert any(words in one for one in found.next)
    assert not any("jemalloc" in one for one in found.next)


def test_advice_for_empty_tables_names_the_service_and_the_allocator() -> None:
    server = replace(
        PLAIN, unused=Amount(100 * MIB), unit="redis-server.service", libraries=("libjemalloc.so.2",)
    )
    (found,) = find("empty", server)
    assert found.next[0].startswith("systemctl restart redis-server.service ")
    assert "MALLOC_CONF=retain:false" in found.next[1]


def test_sparse_tables_of_zero_pages_are_not_found_twice() -> None:
    both = replace(PLAIN, sparse=Amount(5 * MIB), zero_only=Amount(5 * MIB))
    assert find("sparse", both) == []
    (found,) = find("sparse", replace(both, comm="redis-server", zero_only=Amount(0)))
    assert "activedefrag" in found.next[0]
    assert len(find("zero-page", both, kernel=NEW)[0].next) == 2


def shares(pid: int, tables: int, key: str = "0:1:2") -> ProcessReading:
    mapping = SharedMemory(key, "/dev/zero (deleted)\x1b", tables)
    return replace(PLAIN, pid=pid, comm="postgres", shared=(mapping,))


def test_many_tables_for_one_memory_are_summed() -> None:
    (found,) = find("shared", shares(1, 200), shares(2, 256), shares(3, 100), shares(4, 999, "0:1:3"))
    assert (found.pids, found.amount) == ((1, 2, 3), 556 * 4096)
    assert "3 processes" in found.what
    assert "one set is 1 MiB" in found.what
    assert "\x1b" not in found.what
    assert "shared_memory_size_in_huge_pages" in found.next[0]
    # With one set of tables for all less than LEAST_BYTES would be saved.
    assert find("shared", shares(1, 2560), shares(2, 200)) == []
    (other,) = find("shared", *(replace(shares(pid, 300), comm="x") for pid in (1, 2)))
    assert "hugetlbfs" in other.next[0]
