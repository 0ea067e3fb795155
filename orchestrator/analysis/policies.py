"""What policies would have done, as rows of a table and as bars."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from orchestrator.analysis.arms import ArmView, RunView
from orchestrator.analysis.text import clean, count, size
from orchestrator.model.policies import POLICIES
from orchestrator.summary import PolicyResult

TABLES_FREED = "page-table bytes freed"
MEMORY_FREED = "memory in blocks freed"


@dataclass(frozen=True)
class Bar:
    """One bar: `value` in bytes, and what is written at its end."""

    policy: str
    measure: str
    value: int
    text: str
    origin: str


def policy_rows(view: RunView) -> list[dict[str, object]]:
    """Rows for the trial that stands for each arm, snapshot by snapshot."""
    rows: list[dict[str, object]] = []
    for arm in view.arms:
        for snapshot, results in groupby(arm.shown.summary.policies, _snapshot):
            for index, result in enumerate(results):
                first = index == 0
                heads = (
                    {"arm": f"{clean(arm.name, 60)}{arm.of_one}", "snapshot": clean(snapshot, 40)}
                    if first
                    else {}
                )
                rows.append({"first": first, "arm": "", "snapshot": "", **heads, **_figures(result)})
    return rows


def policies_explained(view: RunView) -> list[tuple[str, str]]:
    """Each policy of the table, and what it does in one line; without one that this version does not know."""
    names = dict.fromkeys(result.policy for arm in view.arms for result in arm.shown.summary.policies)
    return [(clean(name, 40), POLICIES[name].what) for name in names if name in POLICIES]


def policy_bars(arm: ArmView) -> list[Bar]:
    """Two bars for each policy at the snapshot in which tables are counted: bytes, and blocks."""
    bars = []
    for result in arm.shown.summary.policies:
        if result.snapshot != arm.shown.summary.tables_snapshot:
            continue
        policy, origin = clean(result.policy, 40), _origin(result)
        bars.append(Bar(policy, TABLES_FREED, result.bytes_freed, size(result.bytes_freed), origin))
        memory = _memory(result)
        if memory is not None:
            words = f"{size(memory)} in {count(result.blocks_freed or 0)} blocks" if memory else "no block"
            bars.append(Bar(policy, MEMORY_FREED, memory, words, origin))
    return bars


def _figures(result: PolicyResult) -> dict[str, str]:
    memory = _memory(result)
    return {
        "policy": clean(result.policy, 40),
        "tables_freed": count(result.tables_freed),
        "bytes_freed": size(result.bytes_freed),
        "tables_to_move": count(result.tables_to_move),
        "blocks_freed": "" if result.blocks_freed is None else count(result.blocks_freed),
        "if_moved": "" if result.blocks_freed_if_moved is None else count(result.blocks_freed_if_moved),
        "huge_freeable": "" if result.huge_freeable is None else count(result.huge_freeable),
        "block_bytes": "" if memory is None else size(memory),
        "origin": _origin(result),
    }


def _memory(result: PolicyResult) -> int | None:
    if result.blocks_freed is None or result.block_bytes is None:
        return None
    return result.blocks_freed * result.block_bytes


def _origin(result: PolicyResult) -> str:
    return "predicted" if result.origin == "predicted" else "modelled"


def _snapshot(result: PolicyResult) -> str:
    return result.snapshot
