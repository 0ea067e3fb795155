"""One row of summary.csv, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Value = int | float | str

METRICS: Final = (
    "guest_page_table_bytes_peak",
    "guest_page_table_bytes_end",
    "guest_page_tables_empty",
    "guest_page_tables_total",
    "guest_memmap_bytes",
    "host_page_table_bytes",
    "host_rss_bytes",
    "second_level_bytes",
    "second_level_needed_bytes",
    "unplug_requested_bytes",
    "unplug_achieved_bytes",
    "unplug_shortfall_bytes",
    "unplug_seconds",
    "unplug_outcome",
    "balloon_requested_bytes",
    "balloon_achieved_bytes",
    "blocks_plugged",
    "blocks_pinned",
    "blocks_pinned_page_table",
    "blocks_pinned_page_table_only",
    "blocks_pinned_slab",
    "blocks_pinned_other",
    "blocks_plugged_after",
    "workload_ops_per_second",
    "workload_p99_seconds",
    "accel",
)


@dataclass(frozen=True)
class PolicyResult:
    """What one policy would have done to the guest of one snapshot. Never measured."""

    snapshot: str
    policy: str
    tables_freed: int
    bytes_freed: int
    tables_to_move: int
    blocks_freed: int | None  # None: the guest has no resizable region
    blocks_freed_if_moved: int | None  # if `tables_to_move` were moved as well: an upper bound
    block_bytes: int | None
    origin: str  # "modelled" or "predicted"


@dataclass(frozen=True)
class TrialSummary:
    """One row of summary.csv. Every name in METRICS is a key of `metrics` or of `gaps`."""

    run: str
    trial: str
    arm: str
    repeat: int
    differs: Mapping[str, str]
    kernel_release: str
    outcome: str
    metrics: Mapping[str, Value]
    gaps: Mapping[str, str]
    tables_snapshot: str = ""  # label of the snapshot that guest_page_tables_* are counted in
    blocks_snapshot: str = ""  # label of the snapshot that blocks_pinned* are counted in
    policies: tuple[PolicyResult, ...] = ()

    def number(self, metric: str) -> float | None:
        """A metric, if it is there and is a number."""
        value = self.metrics.get(metric)
        return value if isinstance(value, int | float) else None
