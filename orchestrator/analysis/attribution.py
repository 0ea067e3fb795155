"""Attribution check: the classes that workloads inject, and those found in the blocks still plugged.

The blocks still plugged of a trial count as an effect of what was injected in it: a guest without any
workload keeps a handful. For each class as it is *attributed* (each block once, to its first class) and as it
is *contained* (a block counts for each of its classes):

    recall      of the blocks still plugged where it is what was injected, the share that has it
    precision   of all blocks that have it, in whatever trial, the share from trials that injected it

What was injected is the first of the classes that a workload expects, the finest; the others are what it
brings along (page tables of mlocked memory), or is found as where the kernel does not say (network buffers).

A class that is in nearly every block has a high recall and a low precision; one to which no block is
attributed has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

from orchestrator.analysis.arms import RunView, TrialView
from orchestrator.analysis.text import class_words, clean, count, percent
from orchestrator.model.frame_class import FrameClass
from orchestrator.records.summary import SnapshotResult

# They are in most blocks still plugged, and pin none of them.
_KEEP_NOTHING: Final = frozenset(
    each.name.lower() for each in (FrameClass.OFFLINE, FrameClass.FREE, FrameClass.CPU_LIST)
)


@dataclass(frozen=True)
class CheckedSnapshot:
    """One snapshot. `contained` are the blocks that contain each class; a block with several counts for each.
    `attributed` are the blocks attributed to each.

    `blocks_expected` contain any of the expected classes, or are still plugged because of one: they contain
    nothing but memmap of such memory, or movable memory where the class fills the guest. Shares are of
    `blocks_still_plugged`, from 0 to 1; None where no block is still plugged.
    """

    trial: str
    arm: str
    snapshot: str
    injected: tuple[str, ...]
    expected: tuple[str, ...]
    blocks_still_plugged: int
    blocks_expected: int
    blocks_expected_share: float | None
    blocks_unexplained: int
    blocks_unexplained_share: float | None
    contained: dict[str, int]
    attributed: dict[str, int]


@dataclass(frozen=True)
class Attribution:
    """A class over all snapshots of a run. Shares from 0 to 1; None where there is nothing to take them of,
    and precision where no trial injected anything else: it would be 1 whatever is found.
    """

    frame_class: str
    trials: int  # of which it is what was injected
    recall_attributed: float | None
    recall_contained: float | None
    precision_attributed: float | None
    precision_contained: float | None


@dataclass(frozen=True)
class ClassCell:
    """Blocks with one class, and those attributed to it; `expected` if it is what was injected."""

    contained: str
    attributed: str
    expected: bool


@dataclass(frozen=True)
class AttributionRow:
    """A class in words: recall and precision as attributed, then as contained. `reasons` are of cells
    without a figure."""

    label: str
    trials: str
    cells: tuple[str, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedSnapshotRow:
    """One snapshot in words."""

    trial: str
    colour: int
    snapshot: str
    injected: str
    expected: str
    still_plugged: str
    blocks_expected: str
    blocks_expected_share: str
    indirectly: str
    unexplained: str
    unexplained_share: str
    cells: tuple[ClassCell, ...]


def attribution_check(view: RunView) -> list[CheckedSnapshot]:
    """A row for each snapshot that was taken after memory had been unplugged, while a workload ran that says
    which class to expect; so a trial may inject one class after the other. None for a guest whose memory
    cannot be unplugged by blocks."""
    return [
        row
        for trial in view.trials
        for result in trial.summary.snapshots
        if result.expected and result.after and (row := _checked_snapshot(trial, result))
    ]


def attributions(rows: Sequence[CheckedSnapshot]) -> list[Attribution]:
    """Recall and precision of each class that was injected, in the order in which it was."""
    names = dict.fromkeys(row.expected[0] for row in rows if row.expected)
    return [_attribution(name, rows) for name in names]


def attribution_rows(found: Sequence[Attribution], rows: Sequence[CheckedSnapshot]) -> list[AttributionRow]:
    """The same in words; `rows` are what they were made of."""
    return [
        AttributionRow(
            label=class_words(one.frame_class),
            trials=count(one.trials),
            cells=tuple(
                "n/a" if share is None else _percent(share)
                for share in (
                    one.recall_attributed,
                    one.precision_attributed,
                    one.recall_contained,
                    one.precision_contained,
                )
            ),
            reasons=tuple(_reasons(one, others=_others(one.frame_class, rows))),
        )
        for one in found
    ]


def attribution_check_as_json(view: RunView) -> list[dict[str, Any]]:
    """The same as plain dicts, lists and numbers."""
    return [
        {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(row).items()}
        for row in attribution_check(view)
    ]


def attribution_check_columns(rows: Sequence[CheckedSnapshot]) -> list[str]:
    """Classes of the table: those expected first, then all that were found and could keep a block."""
    expected = dict.fromkeys(name for row in rows for name in row.expected)
    blocks: dict[str, int] = {}
    for row in rows:
        for name, number in row.contained.items():
            if name not in _KEEP_NOTHING and name not in expected:
                blocks[name] = blocks.get(name, 0) + number
    return [*expected, *sorted(blocks, key=lambda name: -blocks[name])]


def attribution_check_rows(
    view: RunView, rows: Sequence[CheckedSnapshot], columns: Sequence[str]
) -> list[CheckedSnapshotRow]:
    """The rows in words, with a cell for each of `columns`."""
    arms = {arm.name: arm.index for arm in view.arms}
    return [
        CheckedSnapshotRow(
            trial=clean(row.trial),
            colour=arms[row.arm],
            snapshot=clean(row.snapshot, 40),
            injected=clean(", ".join(row.injected), 200),
            expected=_words(row.expected),
            still_plugged=count(row.blocks_still_plugged),
            blocks_expected=count(row.blocks_expected),
            blocks_expected_share=_share(row.blocks_expected, row.blocks_still_plugged),
            indirectly=_indirectly(row),
            unexplained=count(row.blocks_unexplained),
            unexplained_share=_share(row.blocks_unexplained, row.blocks_still_plugged),
            cells=tuple(
                ClassCell(
                    count(row.contained.get(name, 0)),
                    count(row.attributed.get(name, 0)),
                    name in row.expected,
                )
                for name in columns
            ),
        )
        for row in rows
    ]


def attribution_check_sentence(row: CheckedSnapshot) -> str:
    """One line for a terminal."""
    found = "; ".join(
        f"{class_words(name)} in {count(row.contained.get(name, 0))}, "
        f"attributed {count(row.attributed.get(name, 0))}"
        for name in row.expected
    )
    return (
        f"{clean(row.trial, 60)}: injected {clean(', '.join(row.injected), 80)}; of "
        f"{count(row.blocks_still_plugged)} blocks still plugged: {found}; "
        f"{count(row.blocks_unexplained)} are unexplained."
    )


def _checked_snapshot(trial: TrialView, result: SnapshotResult) -> CheckedSnapshot | None:
    still_plugged, expected, unexplained = (
        result.blocks_plugged,
        result.blocks_expected,
        result.blocks_unexplained,
    )
    if still_plugged is None or expected is None or unexplained is None:
        return None
    classes = [one for one in trial.summary.blame if one.snapshot == result.snapshot and not one.table]
    classes.sort(key=lambda one: one.frame_class)
    # Of each region of the guest a row.
    by_class = {name: list(rows) for name, rows in groupby(classes, lambda one: one.frame_class)}
    return CheckedSnapshot(
        trial=trial.summary.trial,
        arm=trial.summary.arm,
        snapshot=result.snapshot,
        injected=tuple(result.injected.split()),
        expected=tuple(result.expected.split()),
        blocks_still_plugged=still_plugged,
        blocks_expected=expected,
        blocks_expected_share=expected / still_plugged if still_plugged else None,
        blocks_unexplained=unexplained,
        blocks_unexplained_share=unexplained / still_plugged if still_plugged else None,
        contained={name: sum(one.blocks for one in rows) for name, rows in by_class.items()},
        attributed={name: sum(one.attributed or 0 for one in rows) for name, rows in by_class.items()},
    )


def _attribution(name: str, rows: Sequence[CheckedSnapshot]) -> Attribution:
    injecting = [row for row in rows if row.expected[:1] == (name,)]
    bringing = [row for row in rows if name in row.expected]
    still_plugged = sum(row.blocks_still_plugged for row in injecting)
    others = _others(name, rows)

    def blocks(of: Sequence[CheckedSnapshot], *, attributed: bool) -> int:
        return sum((row.attributed if attributed else row.contained).get(name, 0) for row in of)

    def recall(*, attributed: bool) -> float | None:
        return blocks(injecting, attributed=attributed) / still_plugged if still_plugged else None

    def precision(*, attributed: bool) -> float | None:
        everywhere = blocks(rows, attributed=attributed)
        return blocks(bringing, attributed=attributed) / everywhere if everywhere and others else None

    return Attribution(
        frame_class=name,
        trials=len(injecting),
        recall_attributed=recall(attributed=True),
        recall_contained=recall(attributed=False),
        precision_attributed=precision(attributed=True),
        precision_contained=precision(attributed=False),
    )


def _indirectly(row: CheckedSnapshot) -> str:
    """How many blocks count as of the classes and contain none of them; empty where that may be none. Counts
    of blocks by class say it exactly where one class alone was found, else at the least."""
    found = [row.contained.get(name, 0) for name in row.expected]
    more = row.blocks_expected - sum(found)
    if more <= 0:
        return ""
    return count(more) if sum(found) == max(found) else f"at least {count(more)}"


def _others(name: str, rows: Sequence[CheckedSnapshot]) -> bool:
    """Whether a trial injected something else than this class, and did not bring it along."""
    return any(name not in row.expected for row in rows)


def _reasons(one: Attribution, *, others: bool) -> Iterator[str]:
    """Why a share is n/a."""
    words = class_words(one.frame_class)
    if one.recall_attributed is None:
        yield f"{words}: no recall, since no block is still plugged where it was injected"
    if not others:
        yield f"{words}: no precision, since every trial injected it: it would be 100 % whatever is found"
        return
    if one.precision_attributed is None:
        yield f"{words}: no precision as attributed, since no block is attributed to it"
    if one.precision_contained is None:
        yield f"{words}: no precision as contained, since no block contains it"


def _share(part: int, whole: int) -> str:
    """To a tenth: whether 95 % of blocks are attributed rightly must not hang on rounding; empty of none."""
    if not whole:
        return ""
    exact = 100 * part / whole
    return f"{exact:.1f} %" if 1 <= exact <= 99 else percent(part, whole)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _words(names: Sequence[str]) -> str:
    return clean(" or ".join(class_words(name) for name in names), 200)
