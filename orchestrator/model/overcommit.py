"""How many guests fit a host, when page tables are reclaimed and when they are not. Pure and seeded.

Guests come one after the other; the memory that each uses grows and shrinks by phases, and page tables
with it (orchestrator.model.guest_population). Counted are

- the guest's *own* last-level tables, in guest memory. A table serves `entries_per_table` used pages. When
  use falls to a share k of its peak, each page stays with probability k, independently: of tables with m
  pages, (1 - k)**m are left empty, and the others stay, valid; and the PMD tables above;
- *second-level* ones, and QEMU's *host* ones: one each for every 2 MiB of memory that backs the guest, at
  its peak; nothing makes KVM free them while the memory slot lives (docs/architecture.md);
- tables that are deposited for the split of huge pages.

In each tick the host holds data, tables, and what was compressed. If that is more than it has, the policy's
own functions say which tables go (orchestrator.model.pressure); if too few can, the guest that uses most is
killed, and the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from orchestrator.model.cost import Added, CostRange, CostTable
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.guest_population import GuestClass, GuestPopulation, LoadPhase
from orchestrator.model.policies import Frees, OverTrace
from orchestrator.model.pressure import COUNTERS, F64, SLACK_BYTES, Pressure, Reclaim, named
from orchestrator.model.replay import EvictionAction
from orchestrator.model.snapshot import I64

__all__ = [
    "GuestClass",
    "HostMemory",
    "LoadPhase",
    "OvercommitResult",
    "OvercommitSetting",
    "Timeline",
    "answer",
    "answers",
    "crowds_of",
]

# Latency is that of touches in this share of ticks: those in which fewest tables were left.
WORST_TICKS = 0.05


@dataclass(frozen=True)
class HostMemory:
    """What there is, in bytes. `swap_bytes` takes tables only, `other_node_bytes` migrated ones."""

    memory_bytes: int
    reserved_bytes: int = 0
    swap_bytes: int = 0
    other_node_bytes: int = 0


@dataclass(frozen=True)
class OvercommitSetting:
    """What is asked: these guests on this host, one every `arrive_seconds`, for `seconds` in all."""

    host: HostMemory
    guests: tuple[GuestClass, ...]
    arrive_seconds: float
    seconds: float
    tick_seconds: float


@dataclass(frozen=True)
class Timeline:
    """One simulated course of events. The series have one value per tick."""

    seconds: F64
    data_bytes: F64
    table_bytes: F64  # in the host's memory: all kinds, valid, empty, and what compressed ones take
    alive: F64
    kept_share: F64  # of the tables in use that pressure may take; 1 without
    counts: I64  # (ticks, COUNTERS)
    killed: int
    came: int

    def worst(self, action: EvictionAction) -> ReplayCounts:
        """Events of the ticks in which fewest tables were left. None where none were evicted at all."""
        ticks = np.argsort(self.kept_share, kind="stable")[: max(1, round(WORST_TICKS * len(self.seconds)))]
        return named(self.counts[ticks[self.kept_share[ticks] < 1]].sum(axis=0), action)


@dataclass(frozen=True)
class OvercommitResult:
    """The answer for one policy and action. Every figure is modelled.

    Typical is the median over seeds at typical costs; the range is over all seeds and the range of costs.
    """

    policy: str
    action: EvictionAction
    evicts_in_use: bool  # whether the action is used at all
    fit: CostRange
    killed: CostRange
    table_bytes_peak: CostRange
    tables_kept_least: CostRange
    """Share of the tables that could be evicted, which were left when it was worst."""
    added: Added
    course: Timeline
    """Of the first seed, with typical costs."""

    def figures(self) -> dict[str, Any]:
        """The answer as JSON has it: all but `evicts_in_use`, which is said in words, and the course."""
        ranges = ("fit", "killed", "table_bytes_peak", "tables_kept_least", "added")
        return {
            "policy": self.policy,
            "action": self.action,
            **{name: asdict(getattr(self, name)) for name in ranges},
        }


def answers(
    question: OvercommitSetting,
    choices: Sequence[tuple[str, EvictionAction]],
    costs: CostTable,
    *,
    seeds: int,
) -> Iterator[OvercommitResult]:
    """One answer for each policy and action, in that order. The same arguments give the same answers.

    Raises BadInputError for an unknown policy.
    """
    crowds = crowds_of(question, seeds)
    for policy, action in choices:
        yield answer(question.host, crowds, policy, action, costs)


def crowds_of(question: OvercommitSetting, seeds: int) -> tuple[GuestPopulation, ...]:
    """The guests that come, for each seed: they are the same whatever the host has."""
    return tuple(
        GuestPopulation.of(
            question.guests,
            arrive_seconds=question.arrive_seconds,
            seconds=question.seconds,
            tick_seconds=question.tick_seconds,
            seed=seed,
        )
        for seed in range(seeds)
    )


def answer(
    host: HostMemory, crowds: Sequence[GuestPopulation], policy: str, action: EvictionAction, costs: CostTable
) -> OvercommitResult:
    """What `answers` says of one policy and action."""
    chosen = OverTrace.named(policy)
    ratio = costs["compressed_ratio"]
    compresses = chosen.evicts_in_use and action is EvictionAction.COMPRESS
    room = float("inf")
    if chosen.evicts_in_use:
        room = {EvictionAction.SWAP: host.swap_bytes, EvictionAction.MIGRATE: host.other_node_bytes}.get(
            action, room
        )
    likely = Reclaim(chosen, action, ratio.typical if compresses else 0.0, room)
    ways = [Reclaim(chosen, action, end, room) for end in (ratio.low, ratio.high)] if compresses else []
    typical = [_SeedResult.of(crowd, host, likely, costs) for crowd in crowds]
    all_of_them = typical + [_SeedResult.of(crowd, host, way, costs) for way in ways for crowd in crowds]
    spread = partial(_spread, typical, all_of_them)
    return OvercommitResult(
        policy,
        action,
        chosen.evicts_in_use,
        fit=spread(lambda one: CostRange.exactly(one.fit)),
        killed=spread(lambda one: CostRange.exactly(one.course.killed)),
        table_bytes_peak=spread(lambda one: CostRange.exactly(float(one.course.table_bytes.max()))),
        tables_kept_least=spread(lambda one: CostRange.exactly(float(one.course.kept_share.min()))),
        added=Added(
            spread(lambda one: one.added.total),
            spread(lambda one: one.added.mean),
            spread(lambda one: one.added.p50),
            spread(lambda one: one.added.p99),
        ),
        course=typical[0].course,
    )


@dataclass(frozen=True)
class _SeedResult:
    """Of one seed and one way."""

    course: Timeline
    fit: int
    added: Added

    @classmethod
    def of(cls, crowd: GuestPopulation, host: HostMemory, reclaim: Reclaim, costs: CostTable) -> _SeedResult:
        course = simulate(crowd, host, reclaim)
        return cls(course, _fit(crowd, host, reclaim, course), costs.added(course.worst(reclaim.action)))


def _spread(
    typical: Sequence[_SeedResult], every: Sequence[_SeedResult], value: Callable[[_SeedResult], CostRange]
) -> CostRange:
    return CostRange(
        min(value(one).low for one in every),
        float(np.median([value(one).typical for one in typical])),
        max(value(one).high for one in every),
    )


def simulate(crowd: GuestPopulation, host: HostMemory, reclaim: Reclaim, most: int | None = None) -> Timeline:
    """What happens when the first `most` guests come (all of them if None)."""
    frees = reclaim.policy.frees
    plays_second = reclaim.action is EvictionAction.DROP and reclaim.policy.evicts_in_use
    pressure = Pressure(crowd.second_level_tables if plays_second else crowd.own_tables, reclaim, crowd.seed)
    mapped = crowd.mapped_bytes(frees_empty=frees is not Frees.NOTHING)
    own = crowd.own_bytes(frees_empty=frees is not Frees.NOTHING)
    upper = crowd.upper_bytes(frees_empty=frees is Frees.ALL_LEVELS)
    # Tables that pressure takes nothing of: QEMU's own, and of the other two those that are not played.
    fixed = mapped + (own if plays_second else mapped) + upper + crowd.deposited_bytes
    guest_bytes = crowd.data_bytes + own + upper
    room = host.memory_bytes - host.reserved_bytes
    ticks, guests = crowd.data_bytes.shape
    alive = np.arange(guests) < (guests if most is None else most)
    came = int(np.sum(crowd.arrived[-1] & alive)) if ticks else 0
    series, counts = np.zeros((4, ticks)), np.zeros((ticks, COUNTERS), dtype=np.int64)
    killed = 0
    for at in range(ticks):
        budget = room - float((crowd.data_bytes[at] + fixed[at])[alive].sum())
        counts[at] = pressure.step(at, budget, alive)
        while pressure.held_bytes > budget + SLACK_BYTES and (guest_bytes[at] * alive).any():
            worst = int(np.argmax(guest_bytes[at] * alive))
            alive[worst] = False
            killed += 1
            budget = room - float((crowd.data_bytes[at] + fixed[at])[alive].sum())
            counts[at] += pressure.end(worst, at, budget, alive)
        data = float(crowd.data_bytes[at, alive].sum())
        tables = float(fixed[at, alive].sum()) + pressure.held_bytes
        series[:, at] = data, tables, int(np.sum(crowd.arrived[at] & alive)), pressure.kept_share
    data_bytes, table_bytes, there, kept = series
    return Timeline(crowd.seconds, data_bytes, table_bytes, there, kept, counts, killed, came)


def _fit(crowd: GuestPopulation, host: HostMemory, reclaim: Reclaim, course: Timeline) -> int:
    """How many of the guests can come before one is killed: more guests never need less memory.

    When all come, the first is killed at a time when so many had come, and as many are one too many.
    """
    if not course.killed:
        return course.came
    first = int(np.argmax(course.alive < crowd.arrived.sum(axis=1)))
    good, bad, step = 0, int(np.flatnonzero(crowd.arrived[first])[-1]) + 1, 1
    while bad - good > 1:
        # Near the upper end, mostly: that is looked at first, in growing steps.
        tried = max(bad - step, (good + bad) // 2)
        if simulate(crowd, host, reclaim, tried).killed:
            bad, step = tried, 2 * step
        else:
            good = tried
    return good
