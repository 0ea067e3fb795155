"""Guests that come to a host one after the other: how much data and how many tables each has, tick by tick.

Of every guest as many tables are played as of every other; each stands for its share of the real ones. Two
kinds can be played: a guest's own last-level tables, and second-level ones. The others are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.model.pressure import F64, SampledTables
from orchestrator.model.snapshot import I64, U8, Bool
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import ENTRIES_PER_TABLE

# A guest's phases begin up to this share of their length late, as its seed has it.
_JITTER = 0.25
# Tables that are played: of all guests about so many, of each within these bounds.
_TABLES = 4096
_LEAST_TABLES, _MOST_TABLES = 16, 512
# Touches in all, about: one for each table in a tick, unless there are too many ticks.
_TOUCHES = 1_500_000


@dataclass(frozen=True)
class LoadPhase:
    """From `seconds` after its arrival on, a guest uses `used` (0..1) of its size as data."""

    seconds: float
    used: float


@dataclass(frozen=True)
class GuestClass:
    """Guests of one kind. `entries_per_table` (1..512) pages lie under one of its own last-level tables."""

    name: str
    size_bytes: int
    at_most: int
    phases: tuple[LoadPhase, ...]
    entries_per_table: float
    huge_share: float = 0.0  # of its data that is mapped by 2 MiB, at both levels
    skew: float = 0.8  # exponent of the Zipf law by which its tables are touched
    zero_share: float = 0.0  # of its own last-level tables that map the zero page only
    tables_per_upper: float = ENTRIES_PER_TABLE  # last-level tables (1..512) below one PMD table


@dataclass(frozen=True)
class GuestPopulation:
    """All guests in the order of their coming. Series are of shape (ticks, guests), in bytes.

    They are of guests that nothing was done to. `own_used_bytes` of last-level tables map something,
    `own_peak_bytes` are the most so far; `upper_*` are the PMD tables above them.
    """

    seconds: F64
    guests: tuple[GuestClass, ...]
    seed: int
    data_bytes: F64
    own_used_bytes: F64
    own_peak_bytes: F64
    upper_used_bytes: F64
    upper_peak_bytes: F64
    deposited_bytes: F64
    """A table for each huge page, at each of the two levels where it is anonymous: kept for its split
    (pgtable_trans_huge_deposit(), mm/huge_memory.c), and freed with it."""

    @classmethod
    def of(
        cls,
        classes: tuple[GuestClass, ...],
        *,
        arrive_seconds: float,
        seconds: float,
        tick_seconds: float,
        seed: int,
    ) -> GuestPopulation:
        """A crowd by chance; the same arguments give the same one."""
        rng = np.random.default_rng(seed)
        kinds = np.repeat(np.arange(len(classes)), [one.at_most for one in classes])
        guests = tuple(classes[kind] for kind in rng.permutation(kinds))
        ticks = np.arange(0.0, seconds, tick_seconds)
        data = np.zeros((len(ticks), len(guests)))
        for number, guest in enumerate(guests):
            lengths = np.diff([0.0, *(phase.seconds for phase in guest.phases)])
            since = np.cumsum(lengths * rng.uniform(1, 1 + _JITTER, len(lengths)))
            age = ticks - number * arrive_seconds
            used = np.interp(age, since, [phase.used for phase in guest.phases])
            data[:, number] = np.where(age >= 0, used * guest.size_bytes, 0)
        entries = np.array([one.entries_per_table for one in guests], dtype=np.float64)
        huge = np.array([one.huge_share for one in guests], dtype=np.float64)
        zero = np.array([one.zero_share for one in guests], dtype=np.float64)
        below = np.array([one.tables_per_upper for one in guests], dtype=np.float64)
        peak = np.maximum.accumulate(data, axis=0)
        own_peak = (1 - huge) * peak / entries / (1 - zero)  # a page of table for `entries` pages
        empty = _empty_share(data, peak, entries)
        return cls(
            seconds=ticks,
            guests=guests,
            seed=seed,
            data_bytes=data,
            own_used_bytes=own_peak * (1 - empty),
            own_peak_bytes=own_peak,
            upper_used_bytes=own_peak / below * (1 - empty**below),
            upper_peak_bytes=own_peak / below,
            deposited_bytes=2 * huge * data / ENTRIES_PER_TABLE,
        )

    @cached_property
    def arrived(self) -> Bool:
        """Who is there by each tick, if none is killed; (ticks, guests)."""
        arrived: Bool = np.maximum.accumulate(self.data_bytes, axis=0) > 0
        return arrived

    def mapped_bytes(self, *, frees_empty: bool) -> F64:
        """Tables that map 4 KiB pages of what backs each guest, of one level; (ticks, guests).

        What is empty maps memory that the guest no longer has. If it stays, so do they.
        """
        small = np.array([1 - one.huge_share for one in self.guests])
        needed = small * (self.data_bytes + self.own_used_bytes + self.upper_used_bytes) / ENTRIES_PER_TABLE
        return needed if frees_empty else np.maximum.accumulate(needed, axis=0)

    def own_bytes(self, *, frees_empty: bool) -> F64:
        """A guest's own last-level tables, without pressure; (ticks, guests)."""
        return self.own_used_bytes if frees_empty else self.own_peak_bytes

    def upper_bytes(self, *, frees_empty: bool) -> F64:
        """A guest's own PMD tables; (ticks, guests)."""
        return self.upper_used_bytes if frees_empty else self.upper_peak_bytes

    @cached_property
    def own_tables(self) -> SampledTables:
        """The guests' own last-level tables, as they come, are touched and go."""
        rng = np.random.default_rng([self.seed, 1])
        number = self._tables_of_each
        peak = np.maximum.accumulate(self.data_bytes, axis=0)
        in_use, kinds = [], []
        for at, guest in enumerate(self.guests):
            # Each table is empty from the use on that its own lot says, so that as many are as should be.
            lot = (rng.permutation(number) + 0.5) / number
            came = _grown(peak[:, at], number)
            empty = _empty_share(self.data_bytes[:, at], peak[:, at], guest.entries_per_table)
            in_use.append(came & (lot >= empty[:, None]))
            zero = rng.permutation(number) < round(guest.zero_share * number)
            kinds.append(np.where(zero, TouchKind.READ_ZERO, TouchKind.TOUCH).astype(np.uint8))
        return self._population(in_use, kinds, self.own_peak_bytes, rng)

    @cached_property
    def second_level_tables(self) -> SampledTables:
        """Second-level tables. A guest's memory goes in whole 2 MiB, so that none is left half empty."""
        rng = np.random.default_rng([self.seed, 2])
        number = self._tables_of_each
        mapped = self.mapped_bytes(frees_empty=True)
        in_use = [_grown(mapped[:, at], number) for at in range(len(self.guests))]
        kinds = [np.full(number, TouchKind.TOUCH, dtype=np.uint8)] * len(self.guests)
        return self._population(in_use, kinds, mapped, rng)

    @property
    def _tables_of_each(self) -> int:
        return min(max(_TABLES // len(self.guests), _LEAST_TABLES), _MOST_TABLES)

    def _population(
        self, in_use: list[Bool], kinds: list[U8], real_bytes: F64, rng: np.random.Generator
    ) -> SampledTables:
        ticks, number = len(self.seconds), self._tables_of_each
        each = min(max(_TOUCHES // (ticks * len(self.guests)), 1), number)
        when, order, table = [], [], []
        for at, (guest, used) in enumerate(zip(self.guests, in_use, strict=True)):
            before = np.vstack([np.zeros((1, number), dtype=np.bool_), used[:-1]])
            for comes, changed in ((0, before & ~used), (1, used & ~before)):
                tick, which = np.nonzero(changed)
                when.append(tick)
                order.append(np.full(len(tick), comes))
                table.append(which + at * number)
            weight = np.arange(1, number + 1, dtype=np.float64) ** -guest.skew
            popular = rng.permutation(number)
            rank = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(ticks * each))
            which = popular[np.minimum(rank, number - 1)]
            tick = np.repeat(np.arange(ticks), each)
            there = used[tick, which]
            when.append(tick[there])
            order.append(np.full(int(there.sum()), 1))
            table.append(which[there] + at * number)
        key = 2 * np.concatenate(when) + np.concatenate(order)
        mixed = rng.permutation(len(key))  # guests run side by side
        mixed = mixed[np.argsort(key[mixed], kind="stable")]
        key, ids = key[mixed], np.concatenate(table)[mixed].astype(np.uint32)
        kind = np.concatenate(kinds)[ids]
        kind[key % 2 == 0] = TouchKind.UNMAPPED
        total = number * len(self.guests)
        return SampledTables(
            Trace("guests on a host", total, ids, kind),
            first=np.searchsorted(key, 2 * np.arange(ticks + 1)),
            touches=np.searchsorted(key, 2 * np.arange(ticks) + 1),
            owner=np.repeat(np.arange(len(self.guests)), number),
            weight=np.repeat(real_bytes.max(axis=0, initial=0) / number, number),
        )


def _empty_share(data: F64, peak: F64, entries: F64 | float) -> F64:
    """Share of tables with `entries` pages each that none is left of, when each page stayed by itself."""
    left = np.divide(data, peak, out=np.ones_like(data), where=peak > 0)
    share: F64 = (1 - left) ** entries
    return share


def _grown(series: F64, number: int) -> Bool:
    """Which of `number` tables are needed, (ticks, number), when all are at the greatest of `series`."""
    most = float(series.max(initial=0))
    count: I64 = np.rint(series / most * number).astype(np.int64) if most else np.zeros(len(series), np.int64)
    return np.arange(number) < count[:, None]
