"""Replay against libcachesim, side by side in one run on one core: `tox -e bench`.

The traces, budgets and policies are those of the equality test. `extra_info` has both rates, in events
a second; theirs includes reading a file of 24 bytes a request from the page cache, which they cannot go
without.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.model.counts import ReplayCounts
from orchestrator.model.jit import njit
from orchestrator.model.replacement import REPLACEMENTS
from orchestrator.model.replay import replay
from orchestrator.model.snapshot import I32, U8, U32
from orchestrator.model.trace import Trace
from orchestrator.units import PAGE_BYTES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from other_simulator import (
    BUDGETS,
    DEFAULT_TABLE,
    OTHERS,
    PATTERNS,
    TABLES,
    TOUCHES,
    TUNED_TABLES,
    shared_trace,
    their_misses,
    write_requests,
)


@pytest.fixture(scope="module", params=PATTERNS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, Path]:
    """A trace, and the same as a file of libcachesim's."""
    trace = shared_trace(request.param)
    return trace, write_requests(trace, tmp_path_factory.mktemp("requests") / "requests.bin")


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("policy", REPLACEMENTS.names())
def test_replay(benchmark: BenchmarkFixture, shared: tuple[Trace, Path], policy: str, budget: int) -> None:
    trace, requests = shared
    replay(shared_trace("uniform", 10, 10), policy, PAGE_BYTES)  # compiled here, and not measured

    def ours() -> ReplayCounts:
        return replay(trace, policy, budget * PAGE_BYTES)

    theirs = policy if policy in OTHERS else "lru"  # the cheapest yardstick for what they lack
    rates: dict[int, float] = {}
    for hashpower in (DEFAULT_TABLE, *TUNED_TABLES):
        began = time.perf_counter()
        misses = their_misses(theirs, requests, TOUCHES, budget, hashpower=hashpower)
        rates[hashpower] = TOUCHES / (time.perf_counter() - began)
    counts = benchmark.pedantic(ours, rounds=3)
    rate = TOUCHES / benchmark.stats.stats.min
    tuned = max(rates.values())
    benchmark.extra_info.update(
        {
            "events_per_second": round(rate),
            f"libcachesim_{theirs}": round(rates[DEFAULT_TABLE]),
            "times": rate / rates[DEFAULT_TABLE],
            f"libcachesim_{theirs}_tuned": round(tuned),
            "times_tuned": rate / tuned,
        }
    )
    if policy in OTHERS:
        assert counts.misses == misses
    assert rate > rates[DEFAULT_TABLE] * (10 if policy in {"lru", "fifo", "clock"} else 1)


@njit
def _bare(table: U32, kind: U8, last: I32, place: U8) -> None:
    for now in range(len(table)):
        if place[table[now]] == 0 and kind[now] != 0:
            last[table[now]] = now


def test_memory_alone(benchmark: BenchmarkFixture, shared: tuple[Trace, Path]) -> None:
    """What any replay has to do: read an event, read a byte and write a word of its table."""
    trace, _ = shared
    last, place = np.zeros(trace.tables, dtype=np.int32), np.zeros(trace.tables, dtype=np.uint8)
    _bare(trace.table, trace.kind, last, place)
    benchmark.pedantic(_bare, args=(trace.table, trace.kind, last, place), rounds=5)
    benchmark.extra_info["events_per_second"] = TOUCHES / benchmark.stats.stats.min


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


@pytest.mark.parametrize("budget", BUDGETS)
def test_lru_alone(benchmark: BenchmarkFixture, shared: tuple[Trace, Path], budget: int) -> None:
    """The least that decides as LRU does, and can do nothing else: no action, nothing let go, no zeros."""
    trace, _ = shared
    last = np.zeros(trace.tables, dtype=np.int32)
    misses = _lru_alone(trace.table, last, budget)
    assert misses == replay(trace, "lru", budget * PAGE_BYTES).misses
    benchmark.pedantic(_lru_alone, args=(trace.table, last, budget), rounds=5)
    benchmark.extra_info["events_per_second"] = TOUCHES / benchmark.stats.stats.min


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
    benchmark.extra_info["nanoseconds"] = benchmark.stats.stats.min / TOUCHES * 1e9
