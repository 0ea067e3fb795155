from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import ANON, LINUX_BLOCK_FRAMES, Guest, bits

from orchestrator.model.frame_class import MOVABLE, UNMOVABLE, FrameClass
from orchestrator.model.frames import (
    KPF_ACTIVE,
    KPF_ANON,
    KPF_BUDDY,
    KPF_COMPOUND_HEAD,
    KPF_COMPOUND_TAIL,
    KPF_HUGE,
    KPF_HWPOISON,
    KPF_LOCKED,
    KPF_LRU,
    KPF_MLOCKED,
    KPF_MMAP,
    KPF_NOPAGE,
    KPF_OFFLINE,
    KPF_PGTABLE,
    KPF_REFERENCED,
    KPF_RESERVED,
    KPF_SLAB,
    KPF_SWAPBACKED,
    KPF_THP,
    KPF_UNEVICTABLE,
    KPF_UPTODATE,
    KPF_ZERO_PAGE,
    classify_frames,
)
from orchestrator.model.snapshot import Evidence

CACHE = FrameClass.PAGE_CACHE


def classify(*flags: int) -> list[FrameClass]:
    guest = Guest(len(flags))
    guest.flags[:] = flags
    return [FrameClass(int(frame_class)) for frame_class in classify_frames(guest.snapshot())]


@pytest.mark.parametrize(
    ("kpf", "expected"),
    [
        ((KPF_NOPAGE,), FrameClass.ABSENT),
        ((KPF_OFFLINE,), FrameClass.OFFLINE),
        ((KPF_OFFLINE, KPF_RESERVED), FrameClass.OFFLINE),
        ((KPF_BUDDY,), FrameClass.FREE),
        ((KPF_BUDDY, KPF_UPTODATE), FrameClass.FREE),  # PG_reported aliases PG_uptodate
        ((KPF_LRU, KPF_ACTIVE, KPF_REFERENCED), FrameClass.PAGE_CACHE),
        ((KPF_MMAP, KPF_ANON, KPF_SWAPBACKED, KPF_UPTODATE), FrameClass.ANONYMOUS),  # still in an LRU batch
        ((KPF_LRU, KPF_SWAPBACKED, KPF_UPTODATE), FrameClass.SHMEM),
        ((KPF_UPTODATE, KPF_REFERENCED), FrameClass.PAGE_CACHE),  # page cache, still in an LRU batch
        ((KPF_LRU, KPF_UNEVICTABLE, KPF_MLOCKED, KPF_ANON), FrameClass.MLOCKED),
        ((KPF_HUGE, KPF_COMPOUND_HEAD), FrameClass.HUGETLB),
        ((KPF_MMAP,), FrameClass.KERNEL),  # a driver's buffer that a process maps
        ((KPF_MMAP, KPF_RESERVED), FrameClass.RESERVED),  # the vDSO
        ((KPF_PGTABLE,), FrameClass.PAGE_TABLE),
        ((KPF_SLAB, KPF_COMPOUND_TAIL), FrameClass.SLAB),
        ((KPF_SLAB, KPF_LOCKED, KPF_ACTIVE), FrameClass.SLAB),
        ((KPF_ZERO_PAGE, KPF_RESERVED), FrameClass.ZERO_PAGE),
        ((KPF_ZERO_PAGE, KPF_THP, KPF_COMPOUND_HEAD), FrameClass.ZERO_PAGE),
        ((KPF_HWPOISON, KPF_LRU, KPF_ANON), FrameClass.HWPOISON),
        ((), FrameClass.KERNEL),
        ((KPF_REFERENCED, KPF_LOCKED), FrameClass.KERNEL),
    ],
)
def test_flags_name_a_class(kpf: tuple[int, ...], expected: FrameClass) -> None:
    assert classify(bits(*kpf)) == [expected]


def test_silent_tails_take_the_class_of_their_head() -> None:
    tail = bits(KPF_COMPOUND_TAIL)
    head = bits(KPF_COMPOUND_HEAD)
    classes = classify(
        *(bits(KPF_BUDDY), head | bits(KPF_LRU, KPF_THP), tail, tail | bits(KPF_HWPOISON), tail),
        *(head | bits(KPF_PGTABLE), tail, head | bits(KPF_SLAB), tail, head, tail, bits(KPF_PGTABLE), tail),
    )
    assert classes == [
        *(FrameClass.FREE, CACHE, CACHE, FrameClass.HWPOISON, CACHE),
        *(FrameClass.PAGE_TABLE, FrameClass.PAGE_TABLE, FrameClass.SLAB, FrameClass.SLAB),
        *(FrameClass.KERNEL, FrameClass.KERNEL),  # large kmalloc
        *(FrameClass.PAGE_TABLE, FrameClass.KERNEL),  # a tail whose head is gone
    ]


def test_a_tail_at_frame_0_has_no_head() -> None:
    assert classify(bits(KPF_COMPOUND_TAIL), ANON) == [FrameClass.KERNEL, FrameClass.ANONYMOUS]


def test_frames_of_removed_memory_blocks_are_absent_whatever_they_read() -> None:
    """On 7.x they read 0, on 6.12 KPF_NOPAGE."""
    guest = Guest(3 * LINUX_BLOCK_FRAMES - 7)
    guest.flags[5 : 2 * LINUX_BLOCK_FRAMES : 3] = bits(KPF_LRU)
    classes = classify_frames(guest.snapshot(online=[1, 9]))
    online = np.zeros(len(classes), dtype=np.bool_)
    online[LINUX_BLOCK_FRAMES : 2 * LINUX_BLOCK_FRAMES] = True
    assert ((classes == FrameClass.ABSENT) == ~online).all()


@given(st.lists(st.integers(0, (1 << 43) - 1), max_size=50))
def test_every_frame_has_one_class_that_exists(flags: list[int]) -> None:
    classes = classify(*flags)
    assert len(classes) == len(flags)
    for flag, frame_class in zip(flags, classes, strict=True):
        if flag & bits(KPF_NOPAGE):
            assert frame_class == FrameClass.ABSENT
        if frame_class == FrameClass.FREE:
            assert flag & bits(KPF_BUDDY) or flag & bits(KPF_COMPOUND_TAIL)  # a tail is what its head is


def test_what_cannot_be_moved() -> None:
    unused = {FrameClass.ABSENT, FrameClass.OFFLINE, FrameClass.FREE, FrameClass.CPU_LIST}
    unused.add(FrameClass.UNKNOWN)  # it may be in use, and it may not
    assert {*UNMOVABLE, *MOVABLE} == set(FrameClass) - unused
    assert not set(UNMOVABLE) & set(MOVABLE)


def test_evidence_speaks_where_flags_are_silent() -> None:
    guest = Guest(2 * len(Evidence))
    guest.flags[len(Evidence) :] = ANON
    found = replace(guest.snapshot(), evidence=np.array([*Evidence, *Evidence], dtype=np.uint8))
    assert found.faults() == []
    classes = [FrameClass(int(frame_class)).name for frame_class in classify_frames(found)]
    silent = [evidence.name for evidence in Evidence]
    silent[Evidence.NONE], silent[Evidence.TABLE], silent[Evidence.PINNED] = "KERNEL", "PAGE_TABLE", "KERNEL"
    movable = ["ANONYMOUS"] * len(Evidence)
    movable[Evidence.PINNED] = "PINNED"
    assert classes == silent + movable


def test_evidence_that_does_not_fit_is_a_fault() -> None:
    guest = Guest(4).snapshot()
    assert "for every frame" in replace(guest, evidence=np.zeros(3, dtype=np.uint8)).faults()[0]
    assert "does not know" in replace(guest, evidence=np.full(4, 99, dtype=np.uint8)).faults()[0]
