"""TLB misses and the memory references of page walks, over a stated pattern of accesses. Modelled; no time.

What huge pages save, and what a second level adds: both are counted in references to page tables, for which
no latency is assumed. ASSUMPTIONS says what else is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Self

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.cost import CostRange
from orchestrator.model.snapshot import I64, U8
from orchestrator.model.tlb_access import AccessPattern
from orchestrator.model.tlb_cpu import TlbCpu
from orchestrator.model.tlb_walk import MOST_LEVELS, Count, translate
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES, PMD_BYTES, TIB

LEAST_LEVELS: Final = 4
MOST_MEMORY_BYTES: Final = 16 * TIB
MOST_ACCESSES: Final = 1 << 32

ASSUMPTIONS: Final = (
    "accesses are data accesses of one thread, each with one translation; no instruction fetch is counted",
    "every cache evicts the least recently used of a set; none prefetches, and nothing is flushed",
    "references are to entries of page tables, wherever these are cached; all count alike, none has a time",
    "which ranges of 2 MiB have huge leaves is drawn by chance, for guest and host each by itself",
    "guest-physical memory lies as guest-virtual does; behind it page tables, side by side, backed as it is",
)


@dataclass(frozen=True)
class MappedMemory:
    """Memory that is accessed, and which shares of its ranges of 2 MiB have leaves of 2 MiB at each level."""

    size_bytes: int
    guest_huge: float
    host_huge: float

    def __post_init__(self) -> None:
        if not PMD_BYTES <= self.size_bytes <= MOST_MEMORY_BYTES or self.size_bytes % PAGE_BYTES:
            raise BadInputError(
                f"memory of {self.size_bytes} bytes", hint="whole pages, from 2MiB to 16TiB, as in 64GiB"
            )
        for share in (self.guest_huge, self.host_huge):
            if not 0 <= share <= 1:
                raise BadInputError(f"a share of {share:g} in huge pages", hint="from 0 to 1")

    @property
    def pages(self) -> int:
        """Of 4 KiB."""
        return self.size_bytes // PAGE_BYTES


@dataclass(frozen=True)
class Load:
    """`warm_up` accesses that fill the caches and are not counted, then `accesses` that are."""

    pattern: AccessPattern
    accesses: int = 500_000
    warm_up: int = 200_000
    levels: int = LEAST_LEVELS
    """Of page tables, of the guest and of the second level."""

    def __post_init__(self) -> None:
        if not (0 < self.accesses <= MOST_ACCESSES and 0 <= self.warm_up <= MOST_ACCESSES):
            raise BadInputError(
                f"{self.accesses} accesses after {self.warm_up}", hint="1 and more, up to 2**32"
            )
        if not LEAST_LEVELS <= self.levels <= MOST_LEVELS:
            raise BadInputError(f"{self.levels} levels of page tables", hint="4 or 5")


@dataclass(frozen=True)
class TlbCounts:
    """Of accesses: `l1_misses` of the first TLB, `walks` after a miss of all TLBs, and their references."""

    accesses: int
    l1_misses: int
    walks: int
    guest_references: int
    host_references: int

    @property
    def references(self) -> int:
        """To tables of both levels."""
        return self.guest_references + self.host_references


@dataclass(frozen=True)
class TlbFigures:
    """Medians over seeds, with the range. `references_per_walk` is None where nothing missed."""

    l1_misses_per_access: CostRange
    tlb_misses_per_access: CostRange
    references_per_access: CostRange
    references_per_walk: CostRange | None

    @classmethod
    def of(cls, counts: Sequence[TlbCounts]) -> Self:
        """Of the same question, asked with several seeds."""
        walked = [one.references / one.walks for one in counts if one.walks]
        return cls(
            _over([one.l1_misses / one.accesses for one in counts]),
            _over([one.walks / one.accesses for one in counts]),
            _over([one.references / one.accesses for one in counts]),
            _over(walked) if walked else None,
        )


@dataclass(frozen=True)
class TlbAnswer:
    """Figures without a second level, where guest tables alone map memory, and with one."""

    one_level: TlbFigures
    two_levels: TlbFigures


def tlb_answer(cpu: TlbCpu, load: Load, memory: MappedMemory, seeds: int) -> TlbAnswer:
    """One level and two, each with seeds 0 to `seeds` - 1."""
    one, two = (
        TlbFigures.of([count(cpu, load, memory, seed, second_level=second) for seed in range(seeds)])
        for second in (False, True)
    )
    return TlbAnswer(one, two)


def count(cpu: TlbCpu, load: Load, memory: MappedMemory, seed: int, *, second_level: bool) -> TlbCounts:
    """Translate a load's accesses. The guest's huge leaves are the same with and without second level."""
    tables, end = _tables(memory.pages, load.levels)
    guest = _huge(memory.pages, memory.guest_huge, np.random.default_rng([seed, 1]))
    host = _huge(end, memory.host_huge, np.random.default_rng([seed, 2]))
    shapes, keys = cpu.layout()
    tags = np.zeros(keys, dtype=np.int64)
    counts = np.zeros(len(Count), dtype=np.int64)
    host_levels = load.levels if second_level else 0
    left = load.warm_up
    for pages in load.pattern.accesses(memory.pages, load.warm_up + load.accesses, seed):
        for piece in (pages[:left], pages[left:]):
            translate(piece, tags, shapes, guest, host, tables, load.levels, host_levels, counts)
            if left and len(piece):
                left -= len(piece)
                if not left:
                    counts[:] = 0
    return TlbCounts(*(int(counts[place]) for place in Count))


def _tables(pages: int, levels: int) -> tuple[I64, int]:
    """The guest-physical page where tables of each level begin, shape (levels + 1,), and where they end."""
    first = np.zeros(levels + 1, dtype=np.int64)
    end = -(-pages // ENTRIES_PER_TABLE) * ENTRIES_PER_TABLE
    for level in range(1, levels + 1):
        first[level] = end
        end += -(-pages // ENTRIES_PER_TABLE**level)
    return first, end


def _huge(pages: int, share: float, rng: np.random.Generator) -> U8:
    """Which ranges have leaves of 2 MiB, shape (ranges,); for a larger share the same ones, and more."""
    ranges = -(-pages // ENTRIES_PER_TABLE)
    found = np.zeros(ranges, dtype=np.uint8)
    found[rng.permutation(ranges)[: round(share * ranges)]] = 1
    return found


def _over(values: list[float]) -> CostRange:
    return CostRange(min(values), median(values), max(values))
