"""Injected and found: what workloads put into memory, and what the blocks that stayed were blamed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from orchestrator.model.frame_class import FrameClass
from orchestrator.report.data import RunView, TrialView
from orchestrator.report.holders import holders_of
from orchestrator.report.text import class_words, clean, count, percent
from orchestrator.summary.records import SnapshotResult

# They are in most blocks that stayed, and keep none of them.
_KEEP_NOTHING: Final = frozenset(
    each.name.lower() for each in (FrameClass.OFFLINE, FrameClass.FREE, FrameClass.CPU_LIST)
)


@dataclass(frozen=True)
class Confusion:
    """One snapshot. `found` are the blocks that hold each class; a block with several counts for each.

    Shares are of `blocks_stayed`, from 0 to 1; None where no block stayed.
    """

    trial: str
    arm: str
    snapshot: str
    injected: tuple[str, ...]
    expected: tuple[str, ...]
    blocks_stayed: int
    blocks_expected: int
    blocks_expected_share: float | None
    blocks_unexplained: int
    blocks_unexplained_share: float | None
    found: dict[str, int]


@dataclass(frozen=True)
class FoundCell:
    """Blocks with one class; `expected` if it is what was injected."""

    text: str
    expected: bool


@dataclass(frozen=True)
class ConfusionRow:
    """One snapshot in words."""

    trial: str
    colour: int
    snapshot: str
    injected: str
    expected: str
    stayed: str
    as_expected: str
    as_expected_share: str
    unexplained: str
    unexplained_share: str
    cells: tuple[FoundCell, ...]


def confusion(view: RunView) -> list[Confusion]:
    """A row for each snapshot that was taken after memory had been taken, while a workload ran that says
    what it is to be found as; so a trial may inject one class after the other."""
    return [
        _confusion(trial, result)
        for trial in view.trials
        for result in trial.summary.snapshots
        if result.expected and result.after
    ]


def confusion_as_json(view: RunView) -> list[dict[str, Any]]:
    """The same as plain dicts, lists and numbers."""
    return [
        {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(row).items()}
        for row in confusion(view)
    ]


def confusion_columns(rows: Sequence[Confusion]) -> list[str]:
    """Classes of the table: those expected first, then all that were found and could keep a block."""
    expected = dict.fromkeys(name for row in rows for name in row.expected)
    blocks: dict[str, int] = {}
    for row in rows:
        for name, number in row.found.items():
            if name not in _KEEP_NOTHING and name not in expected:
                blocks[name] = blocks.get(name, 0) + number
    return [*expected, *sorted(blocks, key=lambda name: -blocks[name])]


def confusion_rows(view: RunView, rows: Sequence[Confusion], columns: Sequence[str]) -> list[ConfusionRow]:
    """The rows in words, with a cell for each of `columns`."""
    arms = {arm.name: arm.index for arm in view.arms}
    return [
        ConfusionRow(
            trial=clean(row.trial),
            colour=arms[row.arm],
            snapshot=clean(row.snapshot, 40),
            injected=clean(", ".join(row.injected), 200),
            expected=_words(row.expected),
            stayed=count(row.blocks_stayed),
            as_expected=count(row.blocks_expected),
            as_expected_share=_share(row.blocks_expected, row.blocks_stayed),
            unexplained=count(row.blocks_unexplained),
            unexplained_share=_share(row.blocks_unexplained, row.blocks_stayed),
            cells=tuple(FoundCell(count(row.found.get(name, 0)), name in row.expected) for name in columns),
        )
        for row in rows
    ]


def confusion_sentence(row: Confusion) -> str:
    """One line for a terminal."""
    stayed = count(row.blocks_stayed)
    found = f"{count(row.blocks_expected)} ({_share(row.blocks_expected, row.blocks_stayed)})"
    return (
        f"{clean(row.trial, 60)}: injected {clean(', '.join(row.injected), 80)}; of {stayed} blocks that "
        f"stayed, {found} hold {_words(row.expected)}; {count(row.blocks_unexplained)} are unexplained."
    )


def _confusion(trial: TrialView, result: SnapshotResult) -> Confusion:
    stayed, as_expected = result.blocks_plugged, result.blocks_expected or 0
    held = holders_of(trial.summary, result.snapshot)
    return Confusion(
        trial=trial.summary.trial,
        arm=trial.summary.arm,
        snapshot=result.snapshot,
        injected=tuple(result.injected.split()),
        expected=tuple(result.expected.split()),
        blocks_stayed=stayed,
        blocks_expected=as_expected,
        blocks_expected_share=as_expected / stayed if stayed else None,
        blocks_unexplained=result.blocks_unexplained,
        blocks_unexplained_share=result.blocks_unexplained / stayed if stayed else None,
        found={name: holder.blocks for (name, table), holder in held.items() if not table},
    )


def _share(part: int, whole: int) -> str:
    """To a tenth: whether 95 % of blocks were told right must not hang on rounding."""
    exact = 100 * part / whole if whole else 0.0
    return f"{exact:.1f} %" if 1 <= exact <= 99 else percent(part, whole)


def _words(names: Sequence[str]) -> str:
    return clean(" or ".join(class_words(name) for name in names), 200)
