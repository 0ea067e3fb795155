"""The model against kernels: policy `empty` on one arm, and an arm whose kernel frees empty tables itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from statistics import median
from typing import Final

from orchestrator.report.data import ArmView, RunView
from orchestrator.report.text import clean, size
from orchestrator.units import MIB

_POLICY: Final = "empty"
_TABLES: Final = "guest_page_table_bytes_end"
# Of less nothing can be said: processes of the system come and go with as much.
_LEAST_BYTES: Final = 8 * MIB


@dataclass(frozen=True)
class LiveRow:
    """`kept` is the arm whose kernel keeps empty tables, `freed` the one whose kernel does not.

    `modelled` is what the policy would have freed of the first, `measured` how much fewer the second has.
    """

    kept: str
    freed: str
    snapshot: str
    modelled: str
    measured: str
    apart: str


def live_rows(view: RunView) -> list[LiveRow]:
    """Rows for each two arms that differ in the kernel only, of which one has far fewer tables."""
    return [row for kept, freed in permutations(view.arms, 2) for row in _row(kept, freed)]


def _row(kept: ArmView, freed: ArmView) -> Iterator[LiveRow]:
    others = [{key: value for key, value in arm.differs.items() if key != "kernel"} for arm in (kept, freed)]
    sizes = kept.typical(_TABLES), freed.typical(_TABLES)
    modelled = [
        result.bytes_freed
        for trial in kept.trials
        if not trial.summary.left_out
        for result in trial.summary.policies
        if result.policy == _POLICY and result.snapshot == trial.summary.tables_snapshot
    ]
    if others[0] != others[1] or None in sizes or not modelled:
        return
    measured = (sizes[0] or 0.0) - (sizes[1] or 0.0)
    if measured < _LEAST_BYTES:
        return
    foretold = float(median(modelled))
    yield LiveRow(
        kept=clean(kept.name, 60),
        freed=clean(freed.name, 60),
        snapshot=clean(kept.shown.summary.tables_snapshot, 40),
        modelled=size(foretold),
        measured=size(measured),
        apart=f"{100 * abs(foretold - measured) / measured:.2g} %",
    )
