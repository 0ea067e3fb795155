"""Replay against libcachesim, side by side in one process on one core: `tox -e bench`.

The policies are those of the equality test, the traces as well, with fewer touches. Theirs reads a file of 24
bytes a request from the page cache, which it cannot go without, and that time is in it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from other_simulator import (
    DEFAULT_TABLE,
    OTHERS,
    PATTERNS,
    TABLES,
    TUNED_TABLES,
    shared_trace,
    their_misses,
    write_requests,
)
from pytest_benchmark.fixture import BenchmarkFixture
from timed_pairs import Timed

from orchestrator.model.jit import njit
from orchestrator.model.policies import OverTrace
from orchestrator.model.replay import replay
from orchestrator.model.snapshot import I32, U8, U32
from orchestrator.model.trace import Trace
from orchestrator.units import PAGE_BYTES

pytestmark = [pytest.mark.benchmark(timer=time.process_time), pytest.mark.timeout(3600)]

TOUCHES = 2_000_000
CASES = (("uniform", 15_000), ("zipf", 60_000), ("scan", 200_000))
ROUNDS = 6
_OURS_A_ROUND = 3  # ours takes a hundredth of a second, theirs a second: as many as make it no single sample


def cpu_seconds(call: Callable[[], int]) -> tuple[float, int]:
    """How long `call` computes, and what it says."""
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


@pytest.mark.parametrize(("pattern", "budget"), CASES)
def test_replay_beside_libcachesim(
    benchmark: BenchmarkFixture, timed: list[Timed], tmp_path: Path, pattern: str, budget: int
) -> None:
    """Each round times all, ours right beside what it is held against; every other round backwards."""
    trace = shared_trace(pattern, TOUCHES)
    requests = write_requests(trace, tmp_path / "requests.bin")
    held_against = {name: name if name in OTHERS else "lru" for name in OverTrace.names()}
    ours: dict[str, list[float]] = defaultdict(list)
    theirs: dict[tuple[str, int], list[float]] = defaultdict(list)
    misses: dict[str, set[int]] = defaultdict(set)

    def replays(policy: str) -> int:
        for _ in range(_OURS_A_ROUND):
            counted = replay(trace, policy, budget * PAGE_BYTES).misses
        return counted

    def one_round() -> None:
        order = 1 if len(theirs["lru", DEFAULT_TABLE]) % 2 else -1
        for rival in [*OTHERS][::order]:
            for policy in [name for name in held_against if held_against[name] == rival][::order]:
                seconds, counted = cpu_seconds(partial(replays, policy))
                ours[policy].append(seconds / _OURS_A_ROUND)
                misses[policy].add(counted)
            for table in (DEFAULT_TABLE, *TUNED_TABLES)[::order]:
                one = partial(their_misses, rival, requests, TOUCHES, budget, hashpower=table)
                seconds, counted = cpu_seconds(one)
                theirs[rival, table].append(seconds)
                misses[rival].add(counted)

    for policy in held_against:
        replay(shared_trace(pattern, 10, 10), policy, PAGE_BYTES)  # compiled here, and not measured
    benchmark.pedantic(one_round, rounds=ROUNDS)
    found = []
    for policy, rival in held_against.items():
        tuned = min((theirs[rival, table] for table in (DEFAULT_TABLE, *TUNED_TABLES)), key=median)
        seconds = (tuple(ours[policy]), tuple(theirs[rival, DEFAULT_TABLE]), tuple(tuned))
        found.append(Timed(policy, rival, f"{pattern}, {budget:,}", TOUCHES, *seconds))
    timed.extend(found)
    benchmark.extra_info["seconds"] = {
        one.policy: {"ours": one.ours, "default": one.default, "tuned": one.tuned} for one in found
    }
    assert all(len(misses[rival]) == 1 for rival in OTHERS), misses
    assert not [words for one in found for words in one.too_slow()]


@pytest.fixture(params=PATTERNS)
def shared(request: pytest.FixtureRequest) -> Trace:
    """A trace."""
    return shared_trace(request.param, TOUCHES)


@njit
def _bare(table: U32, kind: U8, last: I32, place: U8) -> None:
    for now in range(len(table)):
        if place[table[now]] == 0 and kind[now] != 0:
            last[table[now]] = now


def test_memory_alone(benchmark: BenchmarkFixture, shared: Trace) -> None:
    """What any replay has to do: read an event, read a byte and write a word of its table."""
    trace = shared
    last, place = np.zeros(trace.tables, dtype=np.int32), np.zeros(trace.tables, dtype=np.uint8)
    _bare(trace.table, trace.kind, last, place)
    benchmark.pedantic(_bare, args=(trace.table, trace.kind, last, place), rounds=5)
    assert benchmark.stats
    benchmark.extra_info["events_per_second"] = TOUCHES / benchmark.stats.stats.median


@njit
def _lru_alone(table: U32, last: I32, budget: int) -> int:
    last[:] = -1
    oldest = here = misses = 0
    for now in range(len(table)):
        which = table[now]
        if last[which] < 0:
            misses += 1
            if here < budget:
                here += 1
            else:
                while last[table[oldest]] != oldest:
                    oldest += 1
                last[table[oldest]] = -1
                oldest += 1
        last[which] = now
    return misses


@pytest.mark.parametrize(("pattern", "budget"), CASES)
def test_lru_alone(benchmark: BenchmarkFixture, pattern: str, budget: int) -> None:
    """The least that decides as LRU does, and can do nothing else: no action, nothing unmapped, no zeros."""
    trace = shared_trace(pattern, TOUCHES)
    last = np.zeros(trace.tables, dtype=np.int32)
    misses = _lru_alone(trace.table, last, budget)
    assert misses == replay(trace, "lru", budget * PAGE_BYTES).misses
    benchmark.pedantic(_lru_alone, args=(trace.table, last, budget), rounds=5)
    assert benchmark.stats
    benchmark.extra_info["events_per_second"] = TOUCHES / benchmark.stats.stats.median


@njit
def _chase(following: U32, steps: int) -> int:
    at = 0
    for _ in range(steps):
        at = int(following[at])
    return at


@pytest.mark.parametrize("table_bytes", [1, 4, 16])
def test_latency(benchmark: BenchmarkFixture, table_bytes: int) -> None:
    """One read after another, each at a place that the one before tells, in so many bytes for each table."""
    words = TABLES * table_bytes // 4
    order = np.random.default_rng(0).permutation(words).astype(np.uint32)
    following = np.empty(words, dtype=np.uint32)
    following[order] = np.roll(order, -1)
    _chase(following, 10)
    benchmark.pedantic(_chase, args=(following, TOUCHES), rounds=5)
    assert benchmark.stats
    benchmark.extra_info["nanoseconds"] = benchmark.stats.stats.median / TOUCHES * 1e9
