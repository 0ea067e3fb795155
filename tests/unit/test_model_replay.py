"""Replay: counts against an independent simulator, against a slow model, and by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from other_simulator import (
    BUDGETS,
    PATTERNS,
    TOUCHES,
    shared_trace,
    their_misses,
    touches_only,
    write_requests,
)
from reference_replay import Generations, keeper_of, reference_replay

from orchestrator.errors import BadInputError
from orchestrator.model.compiled import NO_VICTIM
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.policies import Frees, OverTrace
from orchestrator.model.replay import EvictionAction, replay
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import PAGE_BYTES

pytestmark = pytest.mark.slow

TAKERS = ["belady", "clock", "fifo", "frequency", "generations", "lru", "pressure_random"]
NAMES = sorted([*TAKERS, "none", "empty", "empty_all_levels", "zero_page"])
GO, ZERO, TOUCH = TouchKind.UNMAPPED, TouchKind.READ_ZERO, TouchKind.TOUCH


def trace_of(*events: tuple[int, TouchKind], tables: int = 2048) -> Trace:
    """A trace of (table, event) pairs."""
    table = np.array([one for one, _ in events], dtype=np.uint32)
    return Trace("by hand", tables, table, np.array([kind for _, kind in events], dtype=np.uint8))


def run(trace: Trace, policy: str, tables: int, **options: object) -> ReplayCounts:
    return replay(trace, policy, tables * PAGE_BYTES, **options)  # type: ignore[arg-type]


def test_all_policies_register_themselves() -> None:
    assert OverTrace.names() == NAMES
    for policy in OverTrace.every():
        assert policy.evicts_in_use == (policy.name in TAKERS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_decisions_as_an_independent_simulator(pattern: str, tmp_path: Path) -> None:
    trace = shared_trace(pattern)
    assert (trace.tables, len(trace)) == (300_000, TOUCHES)
    requests = write_requests(trace, tmp_path / "requests.bin")
    for budget in BUDGETS:
        misses = {name: run(trace, name, budget).misses for name in TAKERS}
        for name in ("fifo", "lru", "clock"):
            assert misses[name] == their_misses(name, requests, len(trace), budget), (name, budget)
        assert misses["belady"] == min(misses.values())


def test_what_goes_by_itself() -> None:
    """Two tables below one PMD table are unmapped; the third is elsewhere and stays."""
    trace = trace_of((0, TOUCH), (1, TOUCH), (600, TOUCH), (0, GO), (1, GO), (1, TOUCH), (1, GO))
    counts = {name: run(trace, name, 100) for name in ("none", "empty", "empty_all_levels")}
    assert [one.freed for one in counts.values()] == [0, 3, 3]
    assert [one.rebuilt for one in counts.values()] == [0, 1, 1]
    assert [one.end_tables for one in counts.values()] == [3, 1, 1]
    assert [one.upper_freed for one in counts.values()] == [0, 0, 2]
    assert [one.upper_tables for one in counts.values()] == [2, 2, 1]


@pytest.mark.parametrize(
    ("action", "took", "brings_back"),
    [
        (EvictionAction.DROP, "dropped", "rebuilt"),
        (EvictionAction.MIGRATE, "migrated", "remote_hits"),
        (EvictionAction.COMPRESS, "compressed", "decompressed"),
        (EvictionAction.SWAP, "swapped_out", "swapped_in"),
    ],
)
def test_an_action_is_undone_by_its_own_kind_of_event(
    action: EvictionAction, took: str, brings_back: str
) -> None:
    counts = run(trace_of((0, TOUCH), (1, TOUCH), (0, TOUCH)), "fifo", 1, action=action)
    moved = action is EvictionAction.MIGRATE
    assert getattr(counts, took) == (1 if moved else 2)
    assert getattr(counts, brings_back) == 1
    assert (counts.hits, counts.misses) == ((1, 2) if moved else (0, 3))


def test_the_zero_page_is_freed_whatever_the_action() -> None:
    trace = trace_of((0, ZERO), (1, TOUCH), (2, TOUCH), (0, ZERO))
    counts = run(trace, "zero_page", 1, action=EvictionAction.SWAP)
    assert (counts.freed, counts.swapped_out, counts.rebuilt) == (1, 0, 1)
    assert counts.over_budget == 2
    # Written to meanwhile, it is in use.
    assert run(trace_of((0, ZERO), (0, TOUCH), (1, TOUCH)), "zero_page", 1).freed == 0


def test_a_touch_of_a_frozen_table_retries_and_is_served() -> None:
    trace = trace_of((0, TOUCH), (1, TOUCH), (0, TOUCH))
    assert run(trace, "fifo", 1).retries == 0
    frozen = run(trace, "fifo", 1, freeze_touches=1)
    assert (frozen.retries, frozen.hits + frozen.misses) == (1, 3)
    # So does one of a table on its way to another node. The first that is served ends it.
    trace = trace_of((0, TOUCH), (1, TOUCH), (0, TOUCH), (0, TOUCH))
    moved = run(trace, "fifo", 1, freeze_touches=9, action=EvictionAction.MIGRATE)
    assert (moved.retries, moved.remote_hits) == (1, 2)
    trace = trace_of((0, TOUCH), (1, TOUCH), (0, TOUCH), (0, GO), (0, TOUCH))
    assert run(trace, "fifo", 1, freeze_touches=9).retries == 1


def test_what_was_unmapped_while_its_table_was_dropped_is_empty() -> None:
    """Table 0 comes back with the zero page alone, so that it is freed, not dropped."""
    trace = trace_of((0, TOUCH), (1, TOUCH), (0, GO), (0, ZERO), (1, TOUCH))
    counts = run(trace, "lru", 1)
    assert (counts.dropped, counts.freed) == (2, 1)
    # Not unmapped, what is below is still there, and a read of it finds no zero page.
    still_mapped = run(trace_of((0, TOUCH), (1, TOUCH), (0, ZERO), (1, TOUCH)), "lru", 1)
    assert (still_mapped.dropped, still_mapped.freed) == (3, 0)


budgets = st.one_of(st.integers(1, 8), st.integers(1, 45))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    tables = draw(st.integers(1, 40))
    apart = draw(st.sampled_from([1, 100]))  # below one PMD table, or below several
    # As long as was drawn: by itself, hypothesis makes lists of a few, in which hardly any table goes.
    size = draw(st.integers(0, 300))
    event = st.tuples(st.integers(0, tables - 1), st.sampled_from([GO, ZERO, TOUCH, TOUCH]))
    events = draw(st.lists(event, min_size=size, max_size=size))
    return trace_of(*((table * apart, kind) for table, kind in events), tables=tables * apart)


@given(traces(), budgets, st.sampled_from(list(EvictionAction)), st.integers(0, 3), st.integers(0, 45))
@settings(max_examples=200)
def test_the_same_as_in_plain_python(
    trace: Trace, budget: int, action: EvictionAction, seed: int, room: int
) -> None:
    events = list(zip(trace.table.tolist(), trace.kind.tolist(), strict=True))
    for name in NAMES:
        expected = reference_replay(events, name, budget, action=action, seed=seed, room=room)
        bounded = {"action": action, "other_nodes_bytes": room * PAGE_BYTES}
        assert run(trace, name, budget, seed=seed, **bounded) == expected, name
    for freeze in (1, 20):  # the engine's, whatever the policy
        expected = reference_replay(events, "fifo", budget, action=action, freeze=freeze)
        assert run(trace, "fifo", budget, action=action, freeze_touches=freeze) == expected


def test_there_are_up_to_four_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in MGLRU: eviction goes on with four, leaves three, and the two youngest are never taken from."""
    events = [(table, TOUCH) for table in (*range(8), 0, 1, *range(8, 40), 30, 31, *range(40, 60))]
    seen = Generations()
    monkeypatch.setattr("reference_replay.Generations", lambda: seen)
    assert keeper_of("generations", events, 0) is seen
    assert reference_replay(events, "generations", 8) == run(trace_of(*events), "generations", 8)
    assert set(seen.sizes) == {3, 4}

    policy = OverTrace.named("generations")
    nodes = policy.state(trace_of(*events), 8, 0)
    numbers = []
    for table in range(60):
        if table >= 8:
            assert policy.functions.victim(nodes, table) == table - 8
            oldest, youngest = nodes[-1, :2]
            numbers.append(int(youngest - oldest) + 1)
        policy.functions.admitted(nodes, table, table)
    assert set(numbers) == {4}


@given(traces(), budgets, st.sampled_from(list(EvictionAction)), st.integers(0, 3))
@settings(max_examples=50)
def test_nothing_is_lost_and_the_budget_holds(
    trace: Trace, budget: int, action: EvictionAction, seed: int
) -> None:
    counts = {name: run(trace, name, budget, action=action, seed=seed) for name in NAMES}
    for name, one in counts.items():
        assert one.touches == one.hits + one.misses == int((trace.kind > 0).sum())
        assert one.cold_misses == int(trace.seen().sum())
        # Every table that came is there, has gone by itself, or was taken; one that was migrated and then
        # went by itself is counted in both.
        twice = one.end_tables + one.evicted + one.freed - one.misses
        assert 0 <= twice <= min(one.migrated, one.freed)
        if name in TAKERS:
            assert one.peak_tables <= budget
            assert one.over_budget == 0
            if action is not EvictionAction.MIGRATE:  # there, who was taken costs no miss
                assert counts["belady"].misses <= one.misses
        else:
            assert one.evicted == 0
        assert one == run(trace, name, budget, action=action, seed=seed)


@given(traces(), budgets, st.integers(0, 45))
@settings(max_examples=100)
def test_other_nodes_never_get_more_than_they_have_room_for(trace: Trace, budget: int, room: int) -> None:
    for name in NAMES:
        one = run(trace, name, budget, action=EvictionAction.MIGRATE, other_nodes_bytes=room * PAGE_BYTES)
        assert one.touches == one.hits + one.misses == int((trace.kind > 0).sum())
        assert one.cold_misses == int(trace.seen().sum())
        # Tables are conserved: each that came is here, there, or was freed; none was lost for want of room.
        away = one.misses - one.freed - one.end_tables
        assert 0 <= away <= (0 if name not in TAKERS else room)
        gone_by_themselves = int((trace.kind == GO).sum())
        assert one.migrated <= room + gone_by_themselves
        if name in TAKERS:
            # Over the budget for one reason only.
            assert (one.over_budget > 0) <= (one.not_moved > 0)
            assert one.peak_tables <= max(budget, trace.tables - min(room, trace.tables))
        else:
            assert (one.migrated, one.not_moved) == (0, 0)
        if room >= trace.tables:
            assert one == run(trace, name, budget, action=EvictionAction.MIGRATE)
            assert one.not_moved == 0


def test_what_finds_no_room_stays() -> None:
    """Two tables at a time, room for one more elsewhere: of five, two could not be moved."""
    trace = trace_of(*((table, TOUCH) for table in range(5)))
    counts = run(trace, "fifo", 2, action=EvictionAction.MIGRATE, other_nodes_bytes=PAGE_BYTES)
    assert (counts.migrated, counts.not_moved, counts.over_budget) == (1, 2, 2)
    assert (counts.end_tables, counts.peak_tables) == (4, 4)
    # What goes by itself over there makes room again.
    trace = trace_of((0, TOUCH), (1, TOUCH), (2, TOUCH), (3, TOUCH), (0, GO), (4, TOUCH))
    counts = run(trace, "fifo", 2, action=EvictionAction.MIGRATE, other_nodes_bytes=PAGE_BYTES)
    assert (counts.migrated, counts.not_moved, counts.freed) == (2, 1, 1)
    # Other actions need no other node.
    assert run(trace, "fifo", 2, other_nodes_bytes=0) == run(trace, "fifo", 2)
    with pytest.raises(BadInputError, match="0 or more would be right"):
        run(trace, "fifo", 2, action=EvictionAction.MIGRATE, other_nodes_bytes=-1)


@pytest.mark.parametrize(
    ("budget", "policy", "words"),
    [
        (-1, "lru", "holds no table"),
        (0, "lru", "holds no table"),
        (PAGE_BYTES, "best", "no policy is called 'best'"),
        (PAGE_BYTES, "migrate", "'migrate' answers no question over a trace"),
    ],
)
def test_what_cannot_be_replayed(budget: int, policy: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        replay(trace_of((0, TOUCH)), policy, budget)


def test_a_trace_that_is_none() -> None:
    with pytest.raises(BadInputError, match="an event of table 9, of 4"):
        run(touches_only("short", 4, np.array([9], dtype=np.uint32)), "lru", 1)
    with pytest.raises(BadInputError, match="frozen"):
        run(trace_of((0, TOUCH)), "lru", 1, freeze_touches=-1)
    assert OverTrace.named("none").frees is Frees.NOTHING


@given(traces(), budgets, st.sampled_from(list(EvictionAction)), st.integers(0, 3), st.integers(1, 5))
@settings(max_examples=50)
def test_lists_of_several_owners_lose_nothing(
    trace: Trace, budget: int, action: EvictionAction, seed: int, owners: int
) -> None:
    """As one list, but for whom chance picks: with one owner, and with tables of several, taken in turn."""
    owned = replace(trace, owner=np.arange(trace.tables) % owners)
    one = run(owned, "pressure_random", budget, action=action, seed=seed)
    assert one.touches == one.hits + one.misses == int((trace.kind > 0).sum())
    assert one.cold_misses == int(trace.seen().sum())
    assert 0 <= one.end_tables + one.evicted + one.freed - one.misses <= min(one.migrated, one.freed)
    assert (one.peak_tables <= budget, one.over_budget) == (True, 0)
    if owners == 1:
        plain = run(trace, "pressure_random", budget, action=action, seed=seed)
        assert one == plain


def test_pressure_visits_owners_in_turn_and_takes_an_eighth_of_each_list() -> None:
    """Lists of 80, 8 and no tables: ten and one more of the first, one and one more of the second."""
    policy = OverTrace.named("pressure_random")
    owner = np.repeat([0, 1, 2], [80, 8, 4])
    trace = replace(trace_of(tables=92), owner=owner)
    functions, state = policy.functions_over(trace), policy.state(trace, 92, 0)
    assert functions is not policy.functions_over(trace_of())
    for table in range(88):  # nothing of the third came
        functions.admitted(state, table, 0)
    taken = [functions.victim(state, 0) for _ in range(13)]
    assert sorted(owner[taken].tolist()) == [0] * 11 + [1] * 2
    assert len(set(taken)) == 13
    functions.forgotten(state, next(table for table in range(80) if table not in taken))
    rest = [functions.victim(state, 0) for _ in range(74)]
    assert len({*taken, *rest}) == 87
    assert functions.victim(state, 0) == NO_VICTIM


_ELSEWHERE = """
import json, sys
import numpy as np
from orchestrator.guest.cache import cache_dir
from orchestrator.model import replay
from orchestrator.model.trace import Trace
from orchestrator.store.machine_code import keep_code

keep_code(cache_dir() / "compiled")
table, kind = np.array(json.loads(sys.argv[1]), dtype=np.uint32), np.full(int(sys.argv[2]), 2, dtype=np.uint8)
counts = replay.replay(Trace("by hand", 2048, table, kind), "lru", 8 * 4096)
print(json.dumps([counts.as_dict(), sum(replay._replay.stats.cache_misses.values())]))
"""


def test_another_process_compiles_nothing_and_says_the_same() -> None:
    tables = [*range(20), 3, *range(9)]
    counts = run(trace_of(*((table, TOUCH) for table in tables)), "lru", 8)
    argv = [sys.executable, "-c", _ELSEWHERE, json.dumps(tables), str(len(tables))]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(said) == [counts.as_dict(), 0]


def test_a_trace_with_owners_that_fit_it() -> None:
    assert replace(trace_of(), owner=np.zeros(2048, np.int64)).faults() == []
    (fault,) = replace(trace_of(), owner=np.zeros(3, np.int64)).faults()
    assert "3 owners of 2048 tables" in fault
