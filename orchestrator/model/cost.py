"""What an event of a replay costs: every constant has a unit, a range and a source, and the range is kept.

Two pictures of the same replay differ by how sure one can be of a price, so a price is never one number:
every figure that comes out of here is an `CostRange`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.counts import ReplayCounts


class CostUnit(StrEnum):
    """What a cost is counted in."""

    SECONDS = "s"
    RATIO = "ratio"  # a share of a page, above 0 and at most 1
    PER_TABLE = "per table"  # a number of events for each table


@dataclass(frozen=True)
class CostRange:
    """A quantity that is known to lie from `low` to `high`, most likely at `typical`."""

    low: float
    typical: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise BadInputError(f"a range of {self.low} to {self.high}: both ends must be numbers")
        if not 0 <= self.low <= self.typical <= self.high:
            raise BadInputError(
                f"a range of {self.low:g}, {self.typical:g}, {self.high:g}: it must ascend from 0 or more"
            )

    @classmethod
    def exactly(cls, value: float) -> CostRange:
        """A quantity without doubt."""
        return cls(value, value, value)

    def __add__(self, other: CostRange) -> CostRange:
        return CostRange(self.low + other.low, self.typical + other.typical, self.high + other.high)

    def __mul__(self, factor: CostRange | float) -> CostRange:
        by = factor if isinstance(factor, CostRange) else CostRange.exactly(factor)
        return CostRange(self.low * by.low, self.typical * by.typical, self.high * by.high)

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.typical, self.high))


@dataclass(frozen=True)
class InstructionCount:
    """Instructions of what a cost is of, measured under QEMU's instruction counting: low and high end of the
    mean over boots. `of` says which phase less which. No seconds come of it without an assumption."""

    low: float
    typical: float
    high: float
    boots: int
    of: str


@dataclass(frozen=True)
class Cost:
    """One constant: what it is, and whose word it is."""

    name: str
    what: str
    unit: CostUnit
    value: CostRange
    source: str


def _cost(name: str, what: str, value: tuple[float, float, float], source: str, unit: CostUnit) -> Cost:
    return Cost(name, what, unit, CostRange(*value), source)


_ESTIMATE: Final = "estimate: nothing measured at hand, and so a wide range"
_US: Final = 1e-6
_S = CostUnit.SECONDS

_NO_KERNEL: Final = "no released kernel {} page tables, so there is nothing to count"
_NO_RUN: Final = "no run that counts instructions was given (model calibrate --instructions)"
_ENDED_BY_DEVICE: Final = "it is the wait for a device, of which instructions say nothing"

# Why a cost has no measured count of instructions beside it.
NOT_COUNTED: Final[Mapping[str, str]] = {
    "fault_seconds": _NO_RUN,
    "faults_per_table": "a number of faults and no work: 1 or 512 in page-table-bench, by how it is set",
    "free_seconds": _NO_RUN,
    "migrate_seconds": _NO_KERNEL.format("migrates"),
    "remote_walk_seconds": "it is a wait for memory, of which instructions say nothing",
    "compress_seconds": _NO_KERNEL.format("compresses"),
    "decompress_seconds": _NO_KERNEL.format("decompresses"),
    "compressed_ratio": "a share of a page and no work",
    "swap_out_seconds": _ENDED_BY_DEVICE,
    "swap_in_seconds": _ENDED_BY_DEVICE,
    "retry_seconds": _NO_KERNEL.format("freezes"),
}

# Times are of one 4 KiB table (or of what the name says) on a server of these years.
SHIPPED: Final = (
    _cost(
        "fault_seconds",
        "a page, resident in the host, that faults in again as the second-level table above it was dropped",
        (0.5 * _US, 1.5 * _US, 5 * _US),
        "estimate within a published bound: 2.9 us a page on one vCPU, of two such faults and a trip to user "
        "space between them (340,000 pages/s; A. Moorthy, KVM + userfaultfd, PATCH v4 00/16, kvm list, June "
        "2023); many vCPUs that fault at once wait for each other, for longer than this range",
        _S,
    ),
    _cost(
        "faults_per_table",
        "pages that fault in again under a dropped table, of the 512 that it can map",
        (1, 64, 512),
        "one for a table used for one page (sparse), 512 for a dense one (Intel SDM vol. 3A, 4.5)",
        CostUnit.PER_TABLE,
    ),
    _cost(
        "free_seconds",
        "freezing a table, clearing the entry above, flushing the TLB and freeing it",
        (0.2 * _US, 1 * _US, 10 * _US),
        _ESTIMATE,
        _S,
    ),
    _cost(
        "migrate_seconds",
        "copying a table to another node, and pointing the entry above at it",
        (0.5 * _US, 2 * _US, 20 * _US),
        _ESTIMATE,
        _S,
    ),
    _cost(
        "remote_walk_seconds",
        "how much longer a page walk takes that reads a table of another node",
        (0.03 * _US, 0.07 * _US, 0.3 * _US),
        _ESTIMATE
        + "; Achermann et al., Mitosis, ASPLOS 2020: up to 3.24x faster once tables follow a moved process",
        _S,
    ),
    _cost(
        "compress_seconds",
        "compressing a table",
        (1 * _US, 4.5 * _US, 30 * _US),
        "measured (results/reference/tables): medians of lz4 4.5 us, zstd 22 us, by pyarrow on AMD EPYC",
        _S,
    ),
    _cost(
        "decompress_seconds",
        "finding a compressed table and decompressing it",
        (0.5 * _US, 1.7 * _US, 13.1 * _US),
        "random reads of 4 KiB from zram: lz4 1.71 us mean, zstd 5.71 us mean and 13.1 us at p99 "
        '(figures of VenditatioDelendaEst, as quoted in "Zram Performance Analysis")',
        _S,
    ),
    _cost(
        "compressed_ratio",
        "size of a compressed table, as a share of 4 KiB",
        (0.016, 0.45, 0.51),
        "measured (results/reference/tables): lz4, median and 5 % to 95 % of 700 tables of 6.12 guests",
        CostUnit.RATIO,
    ),
    _cost(
        "swap_out_seconds",
        "what writing a table to swap delays whoever asked for memory",
        (5 * _US, 20 * _US, 1000 * _US),
        _ESTIMATE,
        _S,
    ),
    _cost(
        "swap_in_seconds",
        "reading a table from swap: from fast NVMe to networked storage",
        (15 * _US, 90 * _US, 2000 * _US),
        _ESTIMATE,
        _S,
    ),
    _cost(
        "retry_seconds",
        "a touch that met a frozen table and came again",
        (0.05 * _US, 0.5 * _US, 10 * _US),
        _ESTIMATE,
        _S,
    ),
)


@dataclass(frozen=True)
class Added:
    """Latency that reclaim adds to touches of tables. Modelled, with the range of its costs.

    `total` seconds over all touches, `mean`, `p50` and `p99` seconds per touch. What evicting a table
    takes is paid by the touch that needed the room, as direct reclaim has it.
    """

    total: CostRange
    mean: CostRange
    p50: CostRange
    p99: CostRange


@dataclass(frozen=True)
class CostTable:
    """The costs by name. Raises BadInputError for a name that it lacks, or a value that makes no sense.

    `instructions` stand beside them, and nothing is computed with these.
    """

    costs: Mapping[str, Cost]
    instructions: Mapping[str, InstructionCount] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = sorted({cost.name for cost in SHIPPED} - set(self.costs))
        if missing:
            raise BadInputError(f"costs without {missing[0]}: every one of {len(SHIPPED)} is needed")
        ratio = self.costs["compressed_ratio"].value
        if not (ratio.low > 0 and ratio.high <= 1):
            raise BadInputError(f"compressed_ratio up to {ratio.high:g}: it must be above 0 and at most 1")

    @classmethod
    def shipped(cls) -> CostTable:
        """What holds as long as nothing was measured."""
        return cls({cost.name: cost for cost in SHIPPED})

    def with_measured(self, measured: Mapping[str, Cost]) -> CostTable:
        """This table with what was measured in the place of what was not."""
        unknown = sorted(set(measured) - set(self.costs))
        if unknown:
            raise BadInputError(
                f"no cost is called {unknown[0]!r}", hint=f"there are: {', '.join(sorted(self.costs))}"
            )
        return CostTable({**self.costs, **measured}, self.instructions)

    def with_instructions(self, counts: Mapping[str, InstructionCount]) -> CostTable:
        """This table with counts of instructions beside its costs."""
        return CostTable(self.costs, {**self.instructions, **counts})

    def not_counted(self, name: str) -> str:
        """Why there is no count of instructions beside a cost; empty where there is one."""
        return "" if name in self.instructions else NOT_COUNTED[name]

    def rows(self) -> list[dict[str, Any]]:
        """Every cost as JSON, with `instructions` or, in `not_counted`, why there are none."""
        return [
            {
                **asdict(cost),
                "instructions": asdict(self.instructions[name]) if name in self.instructions else None,
                "not_counted": self.not_counted(name),
            }
            for name, cost in self.costs.items()
        ]

    def __getitem__(self, name: str) -> CostRange:
        return self.costs[name].value

    @property
    def rebuild_seconds(self) -> CostRange:
        """Bringing back all that was used under a dropped second-level table."""
        return self["fault_seconds"] * self["faults_per_table"]

    def reclaiming(self, freed: int, moved: int) -> CostRange:
        """Seconds that freeing and moving so many tables takes, one after the other."""
        return self["free_seconds"] * freed + self["migrate_seconds"] * moved

    def added(self, counts: ReplayCounts) -> Added:
        """What the events of a replay add to its touches."""
        came = (
            (counts.rebuilt, self.rebuild_seconds),
            (counts.decompressed, self["decompress_seconds"]),
            (counts.swapped_in, self["swap_in_seconds"]),
        )
        evicting = (
            (counts.freed + counts.dropped, self["free_seconds"]),
            (counts.migrated, self["migrate_seconds"]),
            (counts.compressed, self["compress_seconds"]),
            (counts.swapped_out, self["swap_out_seconds"]),
        )
        other = (
            (counts.remote_hits, self["remote_walk_seconds"]),
            (counts.retries, self["retry_seconds"]),
        )
        total = CostRange.exactly(0)
        for number, price in (*came, *evicting, *other):
            total += price * number
        # Evictions are spread evenly over the touches that had to make room: every miss.
        reclaim = CostRange.exactly(0)
        for number, price in evicting:
            reclaim += price * (number / counts.misses if counts.misses else 0)
        classes = [(counts.hits - counts.remote_hits, CostRange.exactly(0)), other[0]]
        classes += [(counts.cold_misses, reclaim)]
        classes += [(number, price + reclaim) for number, price in came]
        return Added(
            total,
            total * (1 / counts.touches if counts.touches else 0),
            _percentile(classes, 0.5),
            _percentile(classes, 0.99),
        )


def _percentile(classes: list[tuple[int, CostRange]], share: float) -> CostRange:
    """The value that `share` of all events do not exceed, at each end of the ranges by itself."""
    number = np.array([count for count, _ in classes], dtype=np.float64)
    if not number.sum():
        return CostRange.exactly(0)
    ends = []
    for end in range(3):
        value = np.array([tuple(price)[end] for _, price in classes])
        order = np.argsort(value, kind="stable")
        reached = np.cumsum(number[order]) / number.sum()
        ends.append(float(value[order][np.searchsorted(reached, share - 1e-12)]))
    return CostRange(*ends)
