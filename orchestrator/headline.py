"""The headline metrics: those that probes declare with a series, and all others."""

from __future__ import annotations

from typing import Final

from orchestrator.metric import COST_PHASES, Metric
from orchestrator.probes import declared_series
from orchestrator.units import PAGE_BYTES, PMD_BYTES

_POLL_SECONDS: Final = 0.25  # POLL_SECONDS of orchestrator/actions/settle.py
# Of a thousand tables less than what one interrupt takes.
_INSTRUCTIONS: Final = 0.1

# The columns of summary.csv in their order; a name by itself is that of a series, which its probe declares.
# When an unplug settled is known to the time between two looks.
_COLUMNS: Final[tuple[Metric | str, ...]] = (
    "guest_page_table_bytes_peak",
    "guest_page_table_bytes_end",
    Metric("guest_page_tables_empty", "count", "lower", 1),
    Metric("guest_page_tables_total", "count", "lower", 1, shifts=True),
    Metric("guest_memmap_bytes", "bytes", "lower", PAGE_BYTES),
    "host_page_table_bytes",
    "host_rss_bytes",
    "second_level_bytes",
    "second_level_needed_bytes",
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
    "guest_oom_kills",
    "guest_swap_in_pages",
    "guest_swap_out_pages",
    "guest_memory_some_seconds",
    "guest_memory_full_seconds",
    "host_oom_kills",
    "host_cgroup_oom_kills",
    "host_swap_in_pages",
    "host_swap_out_pages",
    "host_memory_some_seconds",
    "host_memory_full_seconds",
    *(
        Metric(f"{phase}_instructions_per_table", "instructions", "lower", _INSTRUCTIONS)
        for phase in COST_PHASES
    ),
    Metric("integrity_checked_bytes", "bytes", given=True),
    Metric("integrity_mismatches", "count", "lower", 1, worst=True),
    Metric("integrity_stuck_threads", "count", "lower", 1, worst=True),
    Metric("kernel_log_complaints", "count", "lower", 1, worst=True),
)
_LAST: Final = Metric("accel", "")


def _catalogue() -> tuple[Metric, ...]:
    """All metrics; those of series that have no place of their own stand behind the others."""
    of_series = {metric.name: metric for one in declared_series() for metric in one.series.metrics}
    placed = [of_series.pop(one) if isinstance(one, str) else one for one in _COLUMNS]
    return (*placed, *of_series.values(), _LAST)


CATALOGUE: Final = _catalogue()
METRICS: Final = tuple(metric.name for metric in CATALOGUE)
METRIC: Final = {metric.name: metric for metric in CATALOGUE}


def is_timed(name: str) -> bool:
    """Whether a metric of that name means nothing where times are ignored."""
    return name in METRIC and METRIC[name].timed
