"""The TLB model: walks without caches, closed forms of LRU, and a reference that is written by hand."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reference_tlb import Translator, counted

from orchestrator.errors import BadInputError
from orchestrator.model import tlb
from orchestrator.model.tlb import Load, MappedMemory, TlbCounts, count, tlb_answer
from orchestrator.model.tlb_access import ACCESSES, access_pattern, scattered
from orchestrator.model.tlb_cpu import SHIPPED_CPUS, CacheShape, Tlb, TlbCpu, WalkCaches, shipped_cpu
from orchestrator.units import GIB, MIB, PAGE_BYTES

NONE = TlbCpu(name="none", sources={})
SMALL = TlbCpu(
    name="small",
    l1=Tlb(base=CacheShape(entries=4, ways=2), huge=CacheShape(entries=2, ways=2)),
    l2=Tlb(both_sizes=CacheShape(entries=16, ways=4)),
    walk=WalkCaches(pmd=CacheShape(entries=4, ways=2), p4d=CacheShape(entries=1, ways=1)),
    nested_tlb=Tlb(both_sizes=CacheShape(entries=4, ways=4)),
    nested_walk=WalkCaches(all_levels=CacheShape(entries=4, ways=4)),
    sources={},
)


def cpu_with(**parts: object) -> TlbCpu:
    return TlbCpu.model_validate({"name": "made up", "sources": {}, **parts})


def shape(entries: int, ways: int) -> CacheShape:
    return CacheShape(entries=entries, ways=ways)


def load(
    name: str = "uniform", accesses: int = 2000, warm_up: int = 0, levels: int = 4, **parameters: object
) -> Load:
    return Load(access_pattern(name, parameters), accesses, warm_up, levels)


# Walks without caches: what architecture says


@pytest.mark.slow
@pytest.mark.parametrize(
    ("levels", "guest_huge", "host_huge", "one", "two"),
    [
        (4, 0, 0, 4, 24),
        (5, 0, 0, 5, 35),
        (4, 1, 0, 3, 19),  # three entries of the guest, each behind four of the host, and four for the page
        (4, 0, 1, 4, 19),  # four entries of the guest, each behind three of the host, and three for the page
        (4, 1, 1, 3, 15),
        (5, 1, 1, 4, 24),
    ],
)
def test_without_caches_each_access_is_a_whole_walk(
    levels: int, guest_huge: float, host_huge: float, one: int, two: int
) -> None:
    memory = MappedMemory(GIB, guest_huge, host_huge)
    for second, references in ((False, one), (True, two)):
        found = count(NONE, load(levels=levels), memory, 0, second_level=second)
        assert (found.accesses, found.l1_misses, found.walks) == (2000, 2000, 2000)
        assert found.references == 2000 * references
        assert found.guest_references == 2000 * one


# A reference


@pytest.mark.slow
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("cpu", [SMALL, *SHIPPED_CPUS], ids=lambda cpu: cpu.name)
@pytest.mark.parametrize("name", ACCESSES)
def test_counts_are_those_of_the_reference(cpu: TlbCpu, name: str, *, second: bool) -> None:
    parameters = {"step": "1KiB"} if name == "sequential" else {}
    for levels in (4, 5):
        same(cpu, load(name, 3000, 500, levels, **parameters), MappedMemory(3 * GIB, 0.5, 0.6), second=second)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 9),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([4, 5]),
    st.booleans(),
)
def test_counts_are_those_of_the_reference_in_small_memory(
    ranges: int, guest_huge: float, host_huge: float, levels: int, second: bool
) -> None:
    warm_up = 50
    memory = MappedMemory(ranges * 2 * MIB + 3 * PAGE_BYTES, guest_huge, host_huge)
    same(SMALL, load("hot", 300, warm_up, levels), memory, second=second)


def same(cpu: TlbCpu, asked: Load, memory: MappedMemory, *, second: bool) -> None:
    """What the model counts is what the reference does."""
    first, end = tlb._tables(memory.pages, asked.levels)
    guest = tlb._huge(memory.pages, memory.guest_huge, np.random.default_rng([7, 1]))
    host = tlb._huge(end, memory.host_huge, np.random.default_rng([7, 2]))
    translator = Translator(
        cpu,
        asked.levels,
        second,
        huge=lambda page: bool(guest[page // 512]),
        host_huge=lambda page: bool(host[page // 512]),
        frame_of=lambda level, page: int(first[level]) + page // 512**level,
    )
    pages = np.concatenate(
        list(asked.pattern.accesses(memory.pages, asked.warm_up + asked.accesses, 7))
    ).tolist()
    found = count(cpu, asked, memory, 7, second_level=second)
    assert astuple(found) == counted(translator, pages, asked.warm_up)


# Closed forms


@pytest.mark.slow
@pytest.mark.parametrize(("entries", "ways"), [(64, 64), (64, 4), (1024, 8)])
def test_of_uniform_accesses_a_tlb_hits_its_share_of_pages(entries: int, ways: int) -> None:
    """LRU and any other policy: each page is as likely, whatever is there."""
    cpu = cpu_with(l1=Tlb(base=shape(entries, ways)))
    pages = 4096
    found = count(
        cpu,
        load(accesses=200_000, warm_up=20_000),
        MappedMemory(pages * PAGE_BYTES, 0, 0),
        1,
        second_level=False,
    )
    hit = 1 - found.walks / found.accesses
    expected = entries / pages
    assert abs(hit - expected) < 5 * (expected / found.accesses) ** 0.5


@pytest.mark.slow
def test_a_run_through_more_than_fits_misses_each_page_once() -> None:
    """LRU keeps nothing of a loop that is longer than it; one page shorter, it keeps all."""
    cpu = cpu_with(l1=Tlb(base=shape(64, 64)))
    for pages, misses in ((1024, 1024), (512, 512)):
        asked = load("sequential", pages * 4, 0, step="1KiB")
        assert (
            count(cpu, asked, MappedMemory(pages * PAGE_BYTES, 0, 0), 0, second_level=False).walks == misses
        )
    wide = cpu_with(l1=Tlb(base=shape(512, 512)))
    asked = load("sequential", 4 * 512 * 4, 0, step="1KiB")
    assert count(wide, asked, MappedMemory(512 * PAGE_BYTES, 0, 0), 0, second_level=False).walks == 512


@pytest.mark.slow
def test_a_huge_page_takes_one_entry_for_512_pages() -> None:
    cpu = cpu_with(l2=Tlb(both_sizes=shape(16, 16)))
    memory = 16 * 2 * MIB
    for guest, host, misses in ((1, 1, 16), (1, 0, 8192), (0, 1, 8192)):
        asked = load("sequential", 2 * 8192, 0, step="4KiB")
        found = count(cpu, asked, MappedMemory(memory, guest, host), 0, second_level=True)
        # With one leaf small the entry is small, and LRU loses every page of the second round, too.
        assert found.walks == (misses if misses == 16 else 2 * misses)


@pytest.mark.slow
def test_more_huge_pages_never_cost_references_of_uniform_accesses() -> None:
    cpu = shipped_cpu("skylake")
    assert cpu
    found = [
        tlb_answer(cpu, load(accesses=50_000, warm_up=10_000), MappedMemory(64 * GIB, share, 1), 2)
        for share in (0, 0.5, 1)
    ]
    for figures in ([one.one_level for one in found], [one.two_levels for one in found]):
        means = [one.references_per_access.typical for one in figures]
        assert means == sorted(means, reverse=True)
        assert means[0] > 1.2 * means[2]
    assert all(
        one.two_levels.references_per_access.low > one.one_level.references_per_access.high for one in found
    )


@pytest.mark.slow
@pytest.mark.parametrize("access", ["uniform", "hot"])
def test_more_huge_pages_save_most_where_they_fit_the_tlb(access: str) -> None:
    """As docs/model.md says of the run's supplies: 2 MiB by 1,536 entries are 3 GiB."""
    cpu = shipped_cpu("skylake")
    assert cpu
    left = []
    for size in (2560 * MIB, 64 * GIB):
        fewer, more = (
            tlb_answer(cpu, load(access, 50_000, 50_000), MappedMemory(size, share, 1), 1)
            for share in (0.74, 0.90)
        )
        left.append(
            more.two_levels.references_per_access.typical / fewer.two_levels.references_per_access.typical
        )
    assert left[0] < 0.7 < left[1] < 1


@pytest.mark.slow
def test_what_caches_leave_of_a_walk_is_what_others_found() -> None:
    """Park et al., Every Walk's a Hit, ASPLOS 2022: with page-walk caches 1.5 references a walk, and 4.4 in
    guests; their programs have more locality than uniform accesses to 64 GiB, and less than a run through it.
    """
    cpu = shipped_cpu("skylake")
    assert cpu
    ends = [
        tlb_answer(cpu, load(name, 100_000, 50_000), MappedMemory(64 * GIB, 0, 0), 1)
        for name in ("sequential", "uniform")
    ]
    for published, figures in (
        (1.5, [one.one_level for one in ends]),
        (4.4, [one.two_levels for one in ends]),
    ):
        low, high = (one.references_per_walk for one in figures)
        assert low
        assert high
        assert low.high < published < high.low


# Accesses


@pytest.mark.parametrize("name", ACCESSES)
@pytest.mark.parametrize("pages", [1, 2, 3, 513, 100_003])
def test_accesses_are_to_the_memory_there_is_and_the_same_each_time(name: str, pages: int) -> None:
    pattern = access_pattern(name, {})
    found = np.concatenate(list(pattern.accesses(pages, 5000, 3)))
    assert found.dtype == np.int64
    assert len(found) == 5000
    assert 0 <= found.min() <= found.max() < pages
    assert np.array_equal(found, np.concatenate(list(pattern.accesses(pages, 5000, 3))))


@pytest.mark.parametrize("below", [1, 2, 3, 1000, 1025])
def test_scattered_is_a_permutation(below: int) -> None:
    assert sorted(scattered(np.arange(below), below).tolist()) == list(range(below))


def test_scattered_leaves_no_neighbours() -> None:
    found = scattered(np.arange(100_000), 1 << 24)
    assert (np.abs(np.diff(found)) < 512).mean() < 0.01


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.0, 1.2])
def test_zipf_has_its_exponent(exponent: float) -> None:
    pages = 1 << 16
    found = np.concatenate(list(access_pattern("zipf", {"exponent": exponent}).accesses(pages, 400_000, 0)))
    times = np.bincount(found, minlength=pages)[scattered(np.arange(pages), pages)].astype(float)
    few, many = times[9:30].mean(), times[999:3000].mean()
    ranks = (np.arange(10, 31) + 0.5, np.arange(1000, 3001) + 0.5)
    expected = np.log((ranks[1] ** -exponent).mean() / (ranks[0] ** -exponent).mean())
    assert np.log(many / few) == pytest.approx(expected, abs=0.2)


def test_the_hot_set_gets_its_share() -> None:
    found = np.concatenate(
        list(access_pattern("hot", {"share": 0.25, "touches": 0.8}).accesses(1000, 100_000, 0))
    )
    assert (found < 250).mean() == pytest.approx(0.8, abs=0.01)
    assert len(np.unique(found)) == 1000


# What is refused


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("zipff", {}, "no access pattern"),
        ("zipf", {"exponent": -1}, "exponent"),
        ("zipf", {"skew": 1}, "skew"),
        ("uniform", {"share": 1}, "share"),
        ("sequential", {"step": "0B"}, "step"),
        ("hot", {"share": 0}, "share"),
    ],
)
def test_wrong_patterns_are_refused(name: str, parameters: dict[str, object], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        access_pattern(name, parameters)


def test_wrong_memory_and_loads_are_refused() -> None:
    for size, share in ((MIB, 0.5), (GIB + 1, 0.5), (GIB, 1.5), (GIB, -0.1), (17 << 40, 0)):
        with pytest.raises(BadInputError):
            MappedMemory(size, share, 0)
    for accesses, warm_up, levels in ((0, 0, 4), (1, -1, 4), (1, 0, 3), (1, 0, 6)):
        with pytest.raises(BadInputError):
            load(accesses=accesses, warm_up=warm_up, levels=levels)


@pytest.mark.parametrize(
    "parts",
    [
        {"l1": {"base": {"entries": 10, "ways": 4}}},
        {"l1": {"base": {"entries": 12, "ways": 4}}},  # three sets
        {"l1": {"base": {"entries": 0, "ways": 0}}},
        {"l2": {"both_sizes": {"entries": 4, "ways": 4}, "base": {"entries": 4, "ways": 4}}},
        {"walk": {"all_levels": {"entries": 4, "ways": 4}, "pud": {"entries": 4, "ways": 4}}},
        {"l3": {}},
    ],
)
def test_wrong_cpus_are_refused(parts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        cpu_with(**parts)


@pytest.mark.parametrize("cpu", SHIPPED_CPUS, ids=lambda cpu: cpu.name)
def test_each_part_of_a_shipped_cpu_has_a_source(cpu: TlbCpu) -> None:
    parts = {
        name
        for name in ("l1", "l2", "walk", "nested_tlb", "nested_walk")
        if getattr(cpu, name).model_fields_set
    }
    sourced = {word for key in cpu.sources for word in key.split(", ")}
    assert parts <= sourced
    assert cpu.sources


def test_counts_without_a_walk_have_no_references_per_walk() -> None:
    nothing = tlb.TlbFigures.of([TlbCounts(10, 5, 0, 0, 0)])
    assert nothing.references_per_walk is None
    assert nothing.references_per_access.high == 0
