"""How many guests fit a host, when page tables are reclaimed and when they are not. Pure and seeded.

Guests come one after the other; the memory that each uses grows and shrinks by phases, and page tables
with it. Four kinds of tables are counted:

- the guest's *own* ones, in guest memory. A table serves `entries_per_table` used pages. When use falls to
  a share k of its peak, each page stays with probability k, independently: of tables with m pages,
  (1 - k)**m are left empty, and the others stay, valid;
- *second-level* ones, and QEMU's *host* ones: one each for every 2 MiB of memory that backs the guest, at
  its peak; nothing makes KVM let go of them while the memory slot lives (docs/architecture.md);
- *deposited* ones, in the guest and in QEMU's process: the kernel keeps one for each huge page of anonymous
  memory (pgtable_trans_huge_deposit(), mm/huge_memory.c). They come and go with the pages, and no policy can
  take them. KVM keeps none for a huge leaf.

In each tick the host holds data, tables, and what was compressed. If that is more than it has, a policy
that takes tables under pressure takes them, by an action, from those that are valid; if that does not do,
the guest that uses most is killed, and the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.model.cost import Added, CostTable, Interval
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.replacement import REPLACEMENTS, Frees
from orchestrator.model.replay import Action, replay
from orchestrator.model.trace import Trace, touches_only
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

F64 = NDArray[np.float64]

# A guest's phases begin up to this share of their length late, as its seed has it.
_JITTER = 0.25
# However hard the pressure, this share of tables stays: below, every walk would meet a fault.
LEAST_KEPT = 0.1
_TRACE_TABLES = 8192
_TRACE_TOUCHES = 2_000_000


@dataclass(frozen=True)
class Phase:
    """From `seconds` after its arrival on, a guest uses `used` (0..1) of its size as data."""

    seconds: float
    used: float


@dataclass(frozen=True)
class GuestClass:
    """Guests of one kind. `entries_per_table` (1..512) pages of data lie under one of its own tables."""

    name: str
    size_bytes: int
    at_most: int
    phases: tuple[Phase, ...]
    entries_per_table: float
    huge_share: float = 0.0  # of its data that is mapped by 2 MiB, at all levels: tables are deposited only
    skew: float = 0.8  # exponent of the Zipf law by which its tables are touched
    trace: Trace | None = None  # touches of its tables, measured; instead of that law


@dataclass(frozen=True)
class HostMemory:
    """What there is, in bytes. `swap_bytes` takes tables only, `other_node_bytes` migrated ones."""

    memory_bytes: int
    reserved_bytes: int = 0
    swap_bytes: int = 0
    other_node_bytes: int = 0


@dataclass(frozen=True)
class Question:
    """What is asked: these guests on this host, one every `arrive_seconds`, for `seconds` in all."""

    host: HostMemory
    guests: tuple[GuestClass, ...]
    arrive_seconds: float
    seconds: float
    tick_seconds: float


@dataclass(frozen=True)
class Course:
    """One simulated course of events. The series have one value per tick."""

    seconds: F64
    data_bytes: F64
    table_bytes: F64  # in the host's memory: all kinds, valid, empty, and what compressed ones take
    alive: F64
    kept_share: F64  # of the tables that the action may take; 1 without pressure
    killed: int
    came: int


@dataclass(frozen=True)
class Answer:
    """The answer for one policy and action. Every figure is modelled; ranges are over seeds and costs."""

    policy: str
    action: Action
    evicts: bool  # whether the action is used at all
    fit: Interval
    killed: Interval
    table_bytes_peak: Interval
    tables_kept_least: Interval
    """Share of the tables that could be taken, which were left when it was worst."""
    added: Added
    course: Course
    """Of the first seed, with typical costs."""


def answers(
    question: Question, choices: Sequence[tuple[str, Action]], costs: CostTable, *, seeds: int
) -> Iterator[Answer]:
    """One answer for each policy and action, in that order. The same arguments give the same answers.

    Raises BadInputError for an unknown policy.
    """
    crowds = [_Crowd.of(question, seed) for seed in range(seeds)]
    for policy, action in choices:
        yield _answer(question, crowds, policy, action, costs)


def _answer(
    question: Question, crowds: Sequence[_Crowd], policy: str, action: Action, costs: CostTable
) -> Answer:
    chosen = REPLACEMENTS[policy]
    ratio = costs["compressed_ratio"]
    reclaim = _Reclaim(
        frees_empty=chosen.frees is not Frees.NOTHING,
        evicts=chosen.evicts,
        action=action,
        ratio=ratio.typical,
    )
    likely = [simulate(crowd, question.host, reclaim) for crowd in crowds]
    ways = [replace(reclaim, ratio=end) for end in ratio] if action is Action.COMPRESS else [reclaim]
    courses = [simulate(crowd, question.host, way) for way in ways for crowd in crowds]
    least = [float(course.kept_share.min()) for course in courses]
    share = float(np.median([course.kept_share.min() for course in likely]))
    return Answer(
        policy,
        action,
        chosen.evicts,
        fit=_spread([_fit(crowd, question.host, way) for way in ways for crowd in crowds]),
        killed=_spread([course.killed for course in courses]),
        table_bytes_peak=_spread([float(course.table_bytes.max()) for course in courses]),
        tables_kept_least=_spread(least),
        added=costs.added(_pressure_counts(question, policy, action, share)),
        course=likely[0],
    )


@dataclass(frozen=True)
class _Reclaim:
    frees_empty: bool
    evicts: bool
    action: Action
    ratio: float


def simulate(crowd: _Crowd, host: HostMemory, reclaim: _Reclaim, most: int | None = None) -> Course:
    """What happens when the first `most` guests come (all of them if None)."""
    first = slice(0, most)
    alive = np.ones(len(crowd.entries[first]), dtype=np.bool_)
    series = np.zeros((4, len(crowd.seconds)))
    room = host.memory_bytes - host.reserved_bytes
    for at in range(len(crowd.seconds)):
        used, peak = crowd.data_bytes[at, first], crowd.peak_bytes[at, first]
        while True:
            state = _Tables.of(crowd, first, used * alive, peak * alive, reclaim)
            relieved = _relieved(state, reclaim, host, room)
            if relieved.held <= room or not state.guest_bytes.any():
                break
            alive[int(np.argmax(state.guest_bytes))] = False
        series[:, at] = state.data, relieved.tables, int(np.sum(alive & (peak > 0))), relieved.kept_share
    came = int(np.sum(crowd.peak_bytes[-1, first] > 0))
    data, tables, there, kept = series
    return Course(crowd.seconds, data, tables, there, kept, killed=int(np.sum(~alive)), came=came)


@dataclass(frozen=True)
class _Relieved:
    held: float  # bytes, data and tables
    kept_share: float  # of the tables that the action may take
    tables: float  # bytes


def _relieved(state: _Tables, reclaim: _Reclaim, host: HostMemory, room: float) -> _Relieved:
    """What is held once the policy has done what it can."""
    held = state.data + state.tables
    short = held - room
    takeable = state.second if reclaim.action is Action.DROP else state.own_valid
    if short <= 0 or not reclaim.evicts or takeable <= 0:
        return _Relieved(held, 1.0, state.tables)
    gain = 1 - reclaim.ratio if reclaim.action is Action.COMPRESS else 1.0
    most = takeable * (1 - LEAST_KEPT)
    if reclaim.action is Action.SWAP:
        most = min(most, float(host.swap_bytes))
    if reclaim.action is Action.MIGRATE:
        most = min(most, float(host.other_node_bytes))
    taken = min(short / gain if gain > 0 else most, most)
    return _Relieved(held - taken * gain, 1 - taken / takeable, state.tables - taken * gain)


@dataclass(frozen=True)
class _Crowd:
    """All guests in the order of their coming: `data_bytes` and its peak so far are (ticks, guests)."""

    seconds: F64
    entries: F64
    huge: F64
    data_bytes: F64
    peak_bytes: F64

    @classmethod
    def of(cls, question: Question, seed: int) -> _Crowd:
        rng = np.random.default_rng(seed)
        kinds = np.repeat(np.arange(len(question.guests)), [one.at_most for one in question.guests])
        guests = [question.guests[kind] for kind in rng.permutation(kinds)]
        ticks = np.arange(0.0, question.seconds, question.tick_seconds)
        data = np.zeros((len(ticks), len(guests)))
        for number, guest in enumerate(guests):
            lengths = np.diff([0.0, *(phase.seconds for phase in guest.phases)])
            since = np.cumsum(lengths * rng.uniform(1, 1 + _JITTER, len(lengths)))
            age = ticks - number * question.arrive_seconds
            used = np.interp(age, since, [phase.used for phase in guest.phases])
            data[:, number] = np.where(age >= 0, used * guest.size_bytes, 0)
        return cls(
            seconds=ticks,
            entries=np.array([one.entries_per_table for one in guests], dtype=np.float64),
            huge=np.array([one.huge_share for one in guests], dtype=np.float64),
            data_bytes=data,
            peak_bytes=np.maximum.accumulate(data, axis=0),
        )


@dataclass(frozen=True)
class _Tables:
    """Bytes of data and of tables by kind, over all guests; `guest_bytes` (guests,) is each one's memory."""

    data: float
    own_valid: float
    own_empty: float
    second: float
    host: float
    deposited: float
    guest_bytes: F64

    @property
    def tables(self) -> float:
        return self.own_valid + self.own_empty + self.second + self.host + self.deposited

    @classmethod
    def of(cls, crowd: _Crowd, first: slice, data: F64, peak: F64, reclaim: _Reclaim) -> _Tables:
        small, entries = 1 - crowd.huge[first], crowd.entries[first]
        deposits = crowd.huge[first] * data / ENTRIES_PER_TABLE  # a page of table for each 2 MiB
        own_peak = small * peak / entries  # a page of table for each `entries` pages of data
        left = np.divide(data, peak, out=np.ones_like(data), where=peak > 0)
        empty = own_peak * (1 - left) ** entries
        if reclaim.frees_empty:
            own, gone = own_peak - empty, np.zeros_like(empty)
        else:
            own, gone = own_peak - empty, empty
        # Empty second-level tables map memory that was given back: the guest is as small as it is now.
        used = own + gone + deposits
        backed = (data if reclaim.frees_empty else peak) + used
        second = small * backed / ENTRIES_PER_TABLE
        guest = data + used
        hosts_deposits = crowd.huge[first] * guest / ENTRIES_PER_TABLE
        mapped = float(second.sum())
        return cls(
            data=float(data.sum()),
            own_valid=float(own.sum()),
            own_empty=float(gone.sum()),
            second=mapped,
            host=mapped,
            deposited=float((deposits + hosts_deposits).sum()),
            guest_bytes=guest,
        )


def _fit(crowd: _Crowd, host: HostMemory, reclaim: _Reclaim) -> int:
    """How many of the guests can come before one is killed: more guests never need less memory."""
    good, bad = 0, len(crowd.entries) + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if simulate(crowd, host, reclaim, middle).killed:
            bad = middle
        else:
            good = middle
    return good


def _pressure_counts(question: Question, policy: str, action: Action, share: float) -> ReplayCounts:
    """Events when tables have `share` of the room they want, over a mix of all classes' touches."""
    if share == 1:  # nothing is taken
        return ReplayCounts()
    parts = [_touches(one, number) for number, one in enumerate(question.guests)]
    total = ReplayCounts()
    for trace in parts:
        budget = max(1, round(trace.tables * share)) * PAGE_BYTES
        counts = asdict(replay(trace, policy, budget, action=action))
        total = ReplayCounts(**{name: value + getattr(total, name) for name, value in counts.items()})
    return total


def _touches(guest: GuestClass, number: int) -> Trace:
    if guest.trace is not None:
        return guest.trace
    rng = np.random.default_rng([number, _TRACE_TABLES])
    weight = np.arange(1, _TRACE_TABLES + 1, dtype=np.float64) ** -guest.skew
    rank = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(_TRACE_TOUCHES))
    table = rng.permutation(_TRACE_TABLES)[np.minimum(rank, _TRACE_TABLES - 1)]
    # Each table is touched once before, so that its making is not taken for a refault.
    ids = np.concatenate([np.arange(_TRACE_TABLES), table]).astype(np.uint32)
    return touches_only(f"zipf {guest.skew:g}", _TRACE_TABLES, ids)


def _spread(values: Sequence[float]) -> Interval:
    return Interval(float(min(values)), float(np.median(values)), float(max(values)))
