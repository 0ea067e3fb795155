"""The headline metrics: their units, which way is better, and how finely they can be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.units import PAGE_BYTES, PMD_BYTES


@dataclass(frozen=True)
class Metric:
    """One metric of summary.csv.

    `unit` is `bytes`, `count`, `seconds`, `1/s`, or empty for a word. `better` is empty where neither way is.
    `resolution` is one unit of what is counted: spreads below it say nothing. Of a metric `by_block` it is
    the smallest that there is: that of an arm follows from what it unplugs by (summary.resolution).
    `given` metrics are what was asked for, or how much was looked at, not what came of it. A `worst` metric
    counts what must not be: it stands for an arm with its largest value in any trial, also one that is in no
    average. One that a restore `shifts` is not the same in guests that start from saved memory as in those
    that boot (results/reference/boots).
    """

    name: str
    unit: Literal["bytes", "count", "seconds", "1/s", ""]
    better: Literal["lower", "higher", ""] = ""
    resolution: float = 0.0
    given: bool = False
    predicted: bool = False
    by_block: bool = False
    worst: bool = False
    shifts: bool = False

    @property
    def timed(self) -> bool:
        """Whether it means nothing where guests take each other's processor time."""
        return self.unit in {"seconds", "1/s"}


_POLL_SECONDS: Final = 0.25  # POLL_SECONDS of orchestrator/actions/settle.py

# When an unplug settled is known to the time between two looks.
CATALOGUE: Final = (
    Metric("guest_page_table_bytes_peak", "bytes", "lower", PAGE_BYTES, shifts=True),
    Metric("guest_page_table_bytes_end", "bytes", "lower", PAGE_BYTES, shifts=True),
    Metric("guest_page_tables_empty", "count", "lower", 1),
    Metric("guest_page_tables_total", "count", "lower", 1, shifts=True),
    Metric("guest_memmap_bytes", "bytes", "lower", PAGE_BYTES),
    Metric("host_page_table_bytes", "bytes", "lower", PAGE_BYTES, shifts=True),
    Metric("host_rss_bytes", "bytes", "lower", PAGE_BYTES, shifts=True),
    Metric("second_level_bytes", "bytes", "lower", PAGE_BYTES),
    Metric("second_level_needed_bytes", "bytes", "", PAGE_BYTES, predicted=True),
    Metric("unplug_requested_bytes", "bytes", given=True),
    Metric("unplug_achieved_bytes", "bytes", "higher", PMD_BYTES, by_block=True),
    Metric("unplug_shortfall_bytes", "bytes", "lower", PMD_BYTES, by_block=True),
    Metric("unplug_seconds", "seconds", "lower", _POLL_SECONDS),
    Metric("unplug_outcome", ""),
    Metric("balloon_requested_bytes", "bytes", given=True),
    Metric("balloon_achieved_bytes", "bytes", "higher", PAGE_BYTES),
    Metric("blocks_plugged", "count", given=True),
    Metric("blocks_pinned", "count", "lower", 1),
    Metric("blocks_pinned_page_table", "count", "lower", 1),
    Metric("blocks_pinned_page_table_only", "count", "lower", 1),
    Metric("blocks_pinned_slab", "count", "lower", 1),
    Metric("blocks_pinned_other", "count", "lower", 1),
    Metric("blocks_plugged_after", "count", "lower", 1),
    Metric("blocks_unexplained", "count", "lower", 1),
    Metric("workload_ops_per_second", "1/s", "higher"),
    Metric("workload_p99_seconds", "seconds", "lower"),
    Metric("integrity_checked_bytes", "bytes", given=True),
    Metric("integrity_mismatches", "count", "lower", 1, worst=True),
    Metric("integrity_stuck_threads", "count", "lower", 1, worst=True),
    Metric("kernel_log_complaints", "count", "lower", 1, worst=True),
    Metric("accel", ""),
)

METRICS: Final = tuple(metric.name for metric in CATALOGUE)
METRIC: Final = {metric.name: metric for metric in CATALOGUE}


def is_timed(name: str) -> bool:
    """Whether a metric of that name means nothing where times are ignored."""
    return name in METRIC and METRIC[name].timed
