"""Guests on a host that has too little for all: who fits, who is killed, and what makes room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model.compiled import NO_VICTIM, ignore, ignore_forgotten
from orchestrator.model.cost import CostRange, CostTable
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.jit import inlined
from orchestrator.model.overcommit import (
    GuestClass,
    HostMemory,
    LoadPhase,
    OvercommitResult,
    OvercommitSetting,
    answers,
)
from orchestrator.model.policies import Frees, OverTrace
from orchestrator.model.policies.base import Functions
from orchestrator.model.pressure import Pressure, Reclaim, SampledTables, named
from orchestrator.model.replay import EvictionAction
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.report.overcommit import counted, rows, sentences
from orchestrator.scenario.overcommit import load_overcommit
from orchestrator.units import GIB

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[2] / "scenarios" / "overcommit"


def ask(
    question: OvercommitSetting, policy: str, action: EvictionAction = EvictionAction.DROP, seeds: int = 2
) -> OvercommitResult:
    (answer,) = answers(question, [(policy, action)], CostTable.shipped(), seeds=seeds)
    return answer


def question(memory_gib: float = 64, entries: float = 6, **host: int) -> OvercommitSetting:
    phases = (LoadPhase(0, 0.1), LoadPhase(300, 0.6), LoadPhase(600, 0.2))
    guest = GuestClass("g", 8 * GIB, 16, phases, entries)
    return OvercommitSetting(HostMemory(int(memory_gib * GIB), **host), (guest,), 30.0, 1800.0, 30.0)


@pytest.fixture(scope="module")
def shipped() -> dict[str, dict[str, OvercommitResult]]:
    found = {}
    for name in ("sparse", "dense"):
        asked = load_overcommit(SHIPPED / f"{name}.yaml")
        choices = [
            ("none", EvictionAction.DROP),
            ("pressure_random", EvictionAction.COMPRESS),
            ("lru", EvictionAction.SWAP),
        ]
        made = answers(asked.question, choices, CostTable.shipped(), seeds=4)
        found[name] = {answer.policy: answer for answer in made}
    return found


def test_kills_fall_where_tables_are_many_and_taken(shipped: dict[str, dict[str, OvercommitResult]]) -> None:
    sparse = shipped["sparse"]
    for policy in ("pressure_random", "lru"):
        assert sparse[policy].killed.high < sparse["none"].killed.low
        assert sparse[policy].fit.low > sparse["none"].fit.high
        assert sparse[policy].added.p99.typical > 0


def test_kills_stay_where_tables_are_few(shipped: dict[str, dict[str, OvercommitResult]]) -> None:
    dense = shipped["dense"]
    assert dense["none"].killed.low >= 1
    for policy in ("pressure_random", "lru"):
        assert dense[policy].killed == dense["none"].killed
        assert dense[policy].fit == dense["none"].fit


def test_a_dense_guest_needs_two_mib_a_gib_at_each_level() -> None:
    steady = GuestClass("g", 64 * GIB, 1, (LoadPhase(0, 1.0),), 512)
    course = ask(OvercommitSetting(HostMemory(1024 * GIB), (steady,), 1.0, 10.0, 1.0), "none").course
    own = (128 << 20) + (128 << 20) // 512  # and the PMD tables above
    backing = 2 * (64 * GIB + own) / 512  # second-level tables, and QEMU's own
    assert course.table_bytes.max() == pytest.approx(own + backing, rel=1e-12)


def test_huge_pages_have_a_table_deposited_at_both_levels_until_they_go() -> None:
    phases = (LoadPhase(0, 1.0), LoadPhase(100, 1.0), LoadPhase(101, 0.25))
    guest = GuestClass("g", 64 * GIB, 1, phases, 512, huge_share=1.0)
    course = ask(OvercommitSetting(HostMemory(1024 * GIB), (guest,), 1.0, 1000.0, 10.0), "none").course
    assert course.table_bytes[0] == pytest.approx(2 * 128 * (1 << 20))
    assert course.table_bytes[-1] == pytest.approx(2 * 32 * (1 << 20))


def test_huge_pages_save_second_level_tables_only() -> None:
    """The guest and QEMU's process have a deposited table for each; KVM maps them by leaves of 2 MiB."""
    steady = GuestClass(
        "g", 64 * GIB, 1, (LoadPhase(0, 1.0), LoadPhase(5, 1.0), LoadPhase(6, 0.5)), 512, huge_share=1
    )
    course = ask(OvercommitSetting(HostMemory(1024 * GIB), (steady,), 1.0, 30.0, 1.0), "none").course
    own = 128 << 20
    assert course.table_bytes.max() == own + 64 * GIB // 512
    # They go with the pages, whatever the policy.
    assert course.table_bytes[-1] == pytest.approx(course.table_bytes.max() / 2)


def test_a_policy_takes_no_deposited_table() -> None:
    """With less memory than data and tables, swap makes room from tables in use, and there are none."""
    steady = GuestClass("g", 8 * GIB, 1, (LoadPhase(0, 1.0),), 6, huge_share=1)
    tight = OvercommitSetting(HostMemory(8 * GIB, swap_bytes=GIB), (steady,), 1.0, 10.0, 1.0)
    assert ask(tight, "lru", EvictionAction.SWAP).killed.low == 1


def test_what_is_left_empty_follows_from_how_sparse_tables_are() -> None:
    """One page to a table, half of them unmapped: half of the tables are empty, and `empty` frees those."""
    phases = (LoadPhase(0, 1.0), LoadPhase(100, 1.0), LoadPhase(101, 0.5))
    guest = GuestClass("g", 64 * GIB, 1, phases, 1)
    asked = OvercommitSetting(HostMemory(1024 * GIB), (guest,), 1.0, 1000.0, 10.0)
    kept, freed = (ask(asked, policy).course.table_bytes[-1] for policy in ("none", "empty"))
    own, upper = 64 * GIB, 64 * GIB / 512  # no PMD table is left without any of its 512
    assert kept == pytest.approx(own + upper + 2 * (64 * GIB + own + upper) / 512)
    assert freed == pytest.approx(own / 2 + upper + 2 * (32 * GIB + own / 2 + upper) / 512)


def test_a_pmd_table_goes_with_the_last_table_below_it() -> None:
    """Two tables of one page to each, half of the pages unmapped: a quarter of the PMD tables is empty."""
    phases = (LoadPhase(0, 1.0), LoadPhase(100, 1.0), LoadPhase(101, 0.5))
    guest = GuestClass("g", 64 * GIB, 1, phases, 1, tables_per_upper=2)
    asked = OvercommitSetting(HostMemory(1024 * GIB), (guest,), 1.0, 1000.0, 10.0)
    of = {name: ask(asked, name).course.table_bytes[-1] for name in ("empty", "empty_all_levels")}
    assert of["empty"] - of["empty_all_levels"] == pytest.approx(64 * GIB / 2 / 4)


def test_zero_page_takes_no_table_in_use_so_it_equals_empty_where_no_table_is_zero_only() -> None:
    asked = load_overcommit(SHIPPED / "sparse.yaml")
    asked = asked.model_copy(update={"policies": ["empty", "zero_page"], "actions": [EvictionAction.SWAP]})
    found = list(answers(asked.question, list(asked.choices), CostTable.shipped(), seeds=3))
    one, two = rows(found)
    assert (one.name, two.name) == ("empty", "zero_page")
    assert replace(two, name="empty") == one
    assert np.array_equal(found[0].course.table_bytes, found[1].course.table_bytes)


def test_what_a_policy_may_take_decides_who_is_killed() -> None:
    asked = load_overcommit(SHIPPED / "idle.yaml")
    found = list(answers(asked.question, list(asked.choices), CostTable.shipped(), seeds=2))
    of = {one.policy: one for one in found}
    order = ["none", "empty", "empty_all_levels", "zero_page", "lru"]
    for more, fewer in pairwise(order):
        assert of[fewer].killed.high < of[more].killed.low, (fewer, more)
    memory = [of[name].table_bytes_peak.typical for name in order]
    assert len(set(memory)) == len(order)
    # Whom it takes of those in use decides what that costs, not how many are killed.
    assert of["pressure_random"].killed == of["lru"].killed
    assert of["pressure_random"].added.mean.typical > 1.02 * of["lru"].added.mean.typical


def tables_of(events: Sequence[Sequence[tuple[int, TouchKind]]], number: int) -> SampledTables:
    """One guest with `number` tables of one byte each; `events` by tick, unmappings first."""
    flat = [event for tick in events for event in tick]
    ends = np.cumsum([0, *(len(tick) for tick in events)], dtype=np.int64)
    gone = np.array([sum(kind is TouchKind.UNMAPPED for _, kind in tick) for tick in events], dtype=np.int64)
    ids = np.array([table for table, _ in flat], dtype=np.uint32)
    kinds = np.array([kind for _, kind in flat], dtype=np.uint8)
    trace = Trace("made up", number, ids, kinds)
    return SampledTables(trace, ends, ends[:-1] + gone, np.zeros(number, np.int64), np.full(number, 100.0))


def play(
    events: Sequence[Sequence[tuple[int, TouchKind]]],
    policy: OverTrace,
    budgets: Sequence[float],
    *,
    action: EvictionAction = EvictionAction.SWAP,
    room: float = float("inf"),
) -> tuple[Pressure, list[ReplayCounts]]:
    number = 1 + max(table for tick in events for table, _ in tick)
    pressure = Pressure(tables_of(events, number), Reclaim(policy, action, 0.0, room), seed=1)
    alive = np.ones(1, dtype=np.bool_)
    counts = [named(pressure.step(at, 100 * room, alive), action) for at, room in enumerate(budgets)]
    return pressure, counts


ZERO = [(table, TouchKind.READ_ZERO) for table in range(4)]
USED = [(table, TouchKind.TOUCH) for table in range(4, 20)]
GONE = [(table, TouchKind.UNMAPPED) for table in range(16, 20)]


@pytest.mark.parametrize("name", OverTrace.names())
def test_the_policy_itself_says_which_tables_go(name: str) -> None:
    """Four tables map the zero page only, sixteen are in use, of which four are unmapped; none may stay."""
    policy = OverTrace.named(name)
    pressure, (_, counts) = play([[*ZERO, *USED], GONE], policy, [99, 0])
    # A tenth of those in use is never moved: of twelve, two.
    freed, moved, left = {
        "none": (0, 0, 20),
        "empty": (0, 0, 16),
        "empty_all_levels": (0, 0, 16),
        "zero_page": (4, 0, 12),
    }.get(name, (4, 10, 2))
    assert (counts.freed, counts.swapped_out) == (freed, moved)
    assert pressure.held_bytes == 100 * left
    assert policy.evicts_in_use == (moved > 0), "its declaration holds"


def test_order_is_the_policys() -> None:
    """Three tables come, the first is touched again, and one has to go: who is missed says which one did."""
    touched = [(table, TouchKind.TOUCH) for table in (0, 1, 2, 0)]
    missed = {}
    for name in ("fifo", "lru"):
        again = [[(table, TouchKind.TOUCH)] for table in (0, 1)]
        missed[name] = [
            play([touched, [(2, TouchKind.TOUCH)], one], OverTrace.named(name), [9, 2, 9])[1][2].swapped_in
            for one in again
        ]
    assert missed == {"fifo": [1, 0], "lru": [0, 1]}


@inlined
def _only_the_sixth(state: Any, now: int) -> int:
    if state[0]:
        return NO_VICTIM
    state[0] = 1
    return 5


def test_a_policy_that_names_one_table_takes_one() -> None:
    functions = Functions(ignore, ignore, _only_the_sixth, ignore_forgotten)
    one = SimpleNamespace(
        name="sixth",
        frees=Frees.EMPTY,
        evicts_in_use=True,
        functions_over=lambda trace: functions,
        state=lambda trace, budget_tables, seed: np.zeros(1, dtype=np.int64),
    )
    pressure, (_, counts) = play([[*ZERO, *USED], [(5, TouchKind.TOUCH)]], cast("OverTrace", one), [99, 10])
    assert (counts.swapped_out, counts.swapped_in, counts.freed) == (1, 1, 0)
    assert pressure.held_bytes == 2000


def test_without_room_for_those_in_use_the_others_still_go_and_the_order_is_kept() -> None:
    events = [[*USED, *ZERO], *([(table, TouchKind.TOUCH)] for table in (5, 6, 4, 7))]
    pressure, counts = play(events, OverTrace.named("lru"), [99, 18, 15, 15, 15], room=100)
    # There is room to move one, which is 4. Zero-only tables go although those in use stand before
    # them; 7 is next to be moved when 4 comes back, and 8 when 7 does.
    assert [(one.swapped_out, one.freed) for one in counts] == [(0, 0), (1, 1), (0, 3), (1, 0), (1, 0)]
    assert [one.swapped_in for one in counts] == [0, 0, 0, 1, 1]
    assert pressure.held_bytes == 1500


def test_a_killed_guest_takes_its_tables_along_wherever_they_are() -> None:
    for name in OverTrace.names():
        pressure, _ = play([[*ZERO, *USED], GONE], OverTrace.named(name), [99, 3])
        pressure.end(0, 1, 300.0, np.zeros(1, dtype=np.bool_))
        assert pressure.held_bytes == 0
        assert pressure.kept_share == 1


def exact(costs: CostTable, *but: str) -> CostTable:
    """The same costs without doubt, except for some."""
    sure = {
        name: replace(cost, value=CostRange.exactly(cost.value.typical))
        for name, cost in costs.costs.items()
        if name not in but
    }
    return costs.with_measured(sure)


def test_latency_has_the_range_of_seeds_and_of_costs() -> None:
    shipped, asked = CostTable.shipped(), question(swap_bytes=64 * GIB)

    def mean(action: EvictionAction, costs: CostTable, seeds: int) -> CostRange:
        (answer,) = answers(asked, [("pressure_random", action)], costs, seeds=seeds)
        return answer.added.mean

    for action in (EvictionAction.SWAP, EvictionAction.COMPRESS):
        sure = mean(action, exact(shipped), 1)
        assert sure.low == sure.typical == sure.high > 0
        seeds, costs = mean(action, exact(shipped), 4), mean(action, shipped, 1)
        assert seeds.low < seeds.high, "of seeds alone"
        assert costs.low < costs.high, "of costs alone"
        both = mean(action, shipped, 4)
        assert both.low < min(seeds.low, sure.low)
        assert both.high > max(seeds.high, costs.high)
        assert both.low <= costs.low
    ratio = mean(EvictionAction.COMPRESS, exact(shipped, "compressed_ratio"), 1)
    assert ratio.low < ratio.typical < ratio.high, "the smaller they get, the fewer are taken"


def test_typical_is_the_median_of_the_seeds_at_typical_costs() -> None:
    """The ends of the range of a cost do not pull the median."""
    shipped, asked = CostTable.shipped(), question(memory_gib=56)
    (likely,) = answers(asked, [("lru", EvictionAction.COMPRESS)], exact(shipped), seeds=3)
    (ranged,) = answers(asked, [("lru", EvictionAction.COMPRESS)], shipped, seeds=3)
    assert ranged.fit.typical == likely.fit.typical
    assert ranged.tables_kept_least.typical == likely.tables_kept_least.typical
    assert ranged.tables_kept_least.high > likely.tables_kept_least.high


def test_guests_that_do_not_come_in_time_are_not_said_to_fit() -> None:
    one = ask(replace(question(1024), seconds=100.0), "none")
    assert one.fit.high == one.course.came == 4


def test_half_a_guest_is_not_printed_as_none() -> None:
    assert counted(CostRange(0, 0.5, 1)) == "0.5 (0-1)"
    assert counted(CostRange(29, 29.5, 30)) == "29.5 (29-30)"
    assert counted(CostRange(3, 3, 3)) == "3"
    asked = replace(question(memory_gib=72), seconds=3000.0)
    found = list(answers(asked, [("none", EvictionAction.DROP)], CostTable.shipped(), seeds=2))
    assert rows(found)[0].killed.startswith(f"{found[0].killed.typical:g}")


def told(*kills_fit_p99: tuple[float, float, float]) -> str:
    """What is said of answers with these figures, called a, b, ... in that order."""
    any_one = ask(question(), "lru")
    made = [
        replace(
            any_one,
            policy="abcd"[at],
            evicts_in_use=False,
            killed=CostRange.exactly(killed),
            fit=CostRange.exactly(fit),
            added=replace(any_one.added, p99=CostRange.exactly(p99)),
        )
        for at, (killed, fit, p99) in enumerate(kills_fit_p99)
    ]
    return " ".join(sentences(made))


def test_the_best_is_named_only_where_there_is_no_trade_off() -> None:
    assert "So b does best, without a trade-off" in told((3, 26, 0), (1, 28, 0), (1, 27, 1e-6))
    assert "no policy here fits another guest or avoids an OOM kill" in told((3, 26, 0), (3, 26, 1e-6))
    both = told((3, 26, 0), (1, 28, 1e-6), (0, 30, 1e-4), (1, 28, 1e-4))
    assert "depends on what counts: kills, guests that fit, or latency" in both
    assert "With a, 26 fit, 3 are killed, and a touch of a table takes no longer" in both
    assert "With b, 28 fit, 1 are killed, and a touch of a table takes 1 µs longer at p99" in both
    assert "With c, 30 fit, 0 are killed" in both
    assert "With d" not in both, "b is as good, at a lower p99"
    assert "With b or d" in told((3, 26, 0), (1, 28, 1e-6), (0, 30, 1e-4), (1, 28, 1.01e-6))


def test_swap_takes_no_more_than_there_is_room_for() -> None:
    none, little = (ask(question(swap_bytes=room), "lru", EvictionAction.SWAP) for room in (0, 1 << 60))
    assert none.tables_kept_least.low == 1.0
    assert none.killed.low > little.killed.high


@settings(deadline=None, max_examples=8)
@given(
    memory=st.floats(16, 128),
    entries=st.floats(1, 512),
    policy=st.sampled_from(["none", "empty", "pressure_random"]),
    action=st.sampled_from(list(EvictionAction)),
)
def test_memory_is_never_overdrawn_and_ranges_ascend(
    memory: float, entries: float, policy: str, action: EvictionAction
) -> None:
    asked = question(memory, entries, swap_bytes=4 * GIB, other_node_bytes=2 * GIB)
    one = ask(asked, policy, action)
    assert np.all(one.course.data_bytes + one.course.table_bytes <= asked.host.memory_bytes + 1)
    assert 0 <= one.killed.low <= one.killed.high <= 16
    assert 0 < one.tables_kept_least.low <= 1
    assert ask(asked, policy, action).fit == one.fit
    more = replace(asked, host=replace(asked.host, memory_bytes=2 * asked.host.memory_bytes))
    larger = ask(more, policy, action)
    assert larger.fit.low >= one.fit.low
    assert larger.killed.high <= one.killed.high
    assert one.fit.low + one.killed.high >= min(16, one.fit.low + 1) or one.killed.high == 0
