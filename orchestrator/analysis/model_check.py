"""Model check: what policy `empty` would free of one guest, against what another kernel did free.

Only arms that differ in nothing but the kernel are set side by side: the workload was the same, so that
the tables that the second guest lacks are those that its kernel freed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from orchestrator.analysis.arm_table import Cell
from orchestrator.analysis.arms import ArmView, RunView
from orchestrator.analysis.text import clean, count, size
from orchestrator.stats import Interval, connected, of_few
from orchestrator.summary import TrialSummary
from orchestrator.units import PAGE_BYTES

# It frees last-level tables that map nothing, as kernels with CONFIG_PT_RECLAIM do (6375e95f381e, 6.14).
POLICY = "empty"

# Two guests have some twenty tables more or less by chance (results/reference: 14 of 25,614, 4 of 102,405;
# tests/unit/live/sizes.csv: 2 of 176). Of fewer than this many, that is more than the 5 % to be detected.
_FEWEST = 512


@dataclass(frozen=True)
class ModelCheck:
    """Arm `first`, whose kernel kept what `POLICY` would free, and arm `second` of another kernel.

    Bytes are means over the pairs of trials. `relative_error` is how much more was modelled than was freed,
    as a share of what was freed, with Student's interval of five boots and more; None where the second kernel
    freed less than half of it, so that it is no kernel that does what the policy does.
    """

    first: str
    second: str
    colour: int
    snapshot: str
    pairs: int
    modelled_bytes: float  # modelled
    freed_bytes: float  # measured: table pages that the second guest has less; 0 where it has more
    left_bytes: float  # modelled: what the policy would still free of the second
    relative_error: float | None
    interval: Interval | None

    @property
    def error_cell(self) -> Cell:
        """`relative_error` as people read it."""
        if self.relative_error is None:
            return Cell("", why_missing=f"the kernel of {self.second} kept most of it")
        spread = (
            f"{self.interval.low:+.2%} to {self.interval.high:+.2%}".replace("%", " %")
            if self.interval
            else ""
        )
        return Cell(f"{self.relative_error:+.2%}".replace("%", " %"), spread)

    @property
    def sentence(self) -> str:
        """All of it in one."""
        sentence = (
            f"Policy {POLICY} would free {size(self.modelled_bytes)} (modelled) of the page tables of "
            f"{self.first}; {self.second}, which differs in its kernel only, had "
            f"{size(self.freed_bytes)} less (measured)"
        )
        if self.relative_error is None:
            return f"{sentence}: that kernel frees few of these tables."
        return f"{sentence}: an error of {abs(self.relative_error):.2%}.".replace("%", " %")


def model_checks(view: RunView) -> list[ModelCheck]:
    """Every two arms of which one tells what a policy would do, and the other what a kernel did."""
    rows = (_pair(one, other) for one, other in combinations(view.arms, 2) if _only_kernels(one, other))
    return [row for row in rows if row]


def model_check_rows(rows: Iterable[ModelCheck]) -> list[dict[str, object]]:
    """The same as words for the page."""
    return [
        {
            "first": row.first,
            "second": row.second,
            "colour": row.colour,
            "snapshot": row.snapshot,
            "pairs": count(row.pairs),
            "modelled": size(row.modelled_bytes),
            "freed": size(row.freed_bytes),
            "modelled_tables": count(row.modelled_bytes / PAGE_BYTES),
            "freed_tables": count(row.freed_bytes / PAGE_BYTES),
            "left": size(row.left_bytes),
            "relative_error": row.error_cell,
        }
        for row in rows
    ]


def _only_kernels(one: ArmView, other: ArmView) -> bool:
    rest = [{key: value for key, value in arm.differs.items() if key != "kernel"} for arm in (one, other)]
    return rest[0] == rest[1] and one.differs.get("kernel") != other.differs.get("kernel")


@dataclass(frozen=True)
class _Counted:
    """Table pages of a guest, and how many of them the policy would free."""

    snapshot: str
    tables: float
    would_free: int
    boot: str
    host: str


def _pair(one: ArmView, other: ArmView) -> ModelCheck | None:
    pairs = list(_trials(one, other))
    if not pairs:
        return None
    keeps = [fmean(pair[side].would_free for pair in pairs) for side in (0, 1)]
    if keeps[0] < keeps[1]:
        one, other, pairs = other, one, [(b, a) for a, b in pairs]
    would_free = np.array([first.would_free for first, _ in pairs], dtype=np.float64)
    freed = np.array([first.tables - second.tables for first, second in pairs])
    if max(keeps) < _FEWEST:
        return None
    does = bool((freed > would_free / 2).all())
    relative_error = would_free / freed - 1 if does else np.empty(0)
    return ModelCheck(
        first=clean(one.name, 60),
        second=clean(other.name, 60),
        colour=other.index,
        snapshot=clean(pairs[0][0].snapshot, 40),
        pairs=len(pairs),
        modelled_bytes=max(keeps) * PAGE_BYTES,
        freed_bytes=max(0.0, float(freed.mean())) * PAGE_BYTES,
        left_bytes=min(keeps) * PAGE_BYTES,
        relative_error=float(relative_error.mean()) if does else None,
        interval=of_few(relative_error, connected([(a.boot, b.boot) for a, b in pairs])) if does else None,
    )


def _trials(one: ArmView, other: ArmView) -> Iterator[tuple[_Counted, _Counted]]:
    """Trials of the same repeat and host whose tables were counted at the same moment of the scenario."""
    by_repeat = {trial.summary.repeat: _counted(trial.summary) for trial in other.trials}
    for trial in one.trials:
        first, second = _counted(trial.summary), by_repeat.get(trial.summary.repeat)
        if first and second and (first.snapshot, first.host) == (second.snapshot, second.host):
            yield first, second


def _counted(summary: TrialSummary) -> _Counted | None:
    at = summary.tables_snapshot
    tables = summary.number("guest_page_tables_total")
    results = (one for one in summary.policies if (one.snapshot, one.policy) == (at, POLICY))
    result = next(results, None)
    if summary.left_out or tables is None or result is None:
        return None
    return _Counted(at, tables, result.tables_freed, summary.boot, summary.host)
