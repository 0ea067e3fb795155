"""What pins the blocks still plugged: classes of frames down, arms across."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.analysis.arms import ArmView
from orchestrator.analysis.text import class_words, clean, count, size
from orchestrator.model.frame_class import UNMOVABLE, FrameClass
from orchestrator.records.summary import SnapshotResult
from orchestrator.summary import TrialSummary

_PIN: Final = frozenset(frame_class.name.lower() for frame_class in UNMOVABLE)
_PAGE_TABLE: Final = FrameClass.PAGE_TABLE.name.lower()

# Counts of a snapshot, what a reader calls them; before the classes, and after them.
_TOTALS: Final[tuple[tuple[str, Callable[[SnapshotResult], int | None]], ...]] = (
    ("all still plugged", lambda one: one.blocks_plugged),
    ("pinned", lambda one: one.blocks_pinned),
)
_REST: Final[tuple[tuple[str, Callable[[SnapshotResult], int | None]], ...]] = (
    ("pinned by several classes", lambda one: one.blocks_pinned_by_several),
    ("pinned by memmap only", lambda one: one.blocks_pinned_by_memmap_only),
    ("movable, no migration target", lambda one: one.blocks_no_migration_target),
    ("unexplained", lambda one: one.blocks_unexplained),
)


@dataclass(frozen=True)
class PinningClass:
    """A class of frames in the blocks still plugged, over all regions; or, where `table` names it, one kind
    of page table. Of its `blocks`, `sole_blocker` have no other blocker; `freeable` are free without it."""

    frame_class: str
    table: str
    blocks: int
    sole_blocker: int
    freeable: int

    @property
    def pins(self) -> bool:
        """Whether such frames can pin a block."""
        return self.frame_class in _PIN


@dataclass(frozen=True)
class PinningCell:
    """One arm: blocks, and those of which it is the sole blocker; both empty where it has no such block."""

    blocks: str = ""
    sole_blocker: str = ""


@dataclass(frozen=True)
class PinningRow:
    """A class, a kind of page table (`css` is `kind`), or a total."""

    label: str
    css: str
    cells: tuple[PinningCell, ...]


@dataclass(frozen=True)
class PinningArm:
    """The head of an arm's two columns, and its line below; `why_missing` where it has no blame."""

    name: str
    index: int
    note: str
    sentence: str
    why_missing: str


@dataclass(frozen=True)
class PinningTable:
    """The table of all arms; bodies in the order of the page."""

    arms: tuple[PinningArm, ...]
    bodies: tuple[tuple[PinningRow, ...], ...]


def pinning_classes(summary: TrialSummary, snapshot: str) -> dict[tuple[str, str], PinningClass]:
    """What is in the plugged blocks at a snapshot, by class and kind of page table."""
    found: dict[tuple[str, str], PinningClass] = {}
    for row in summary.blame:
        if row.snapshot == snapshot:
            key = row.frame_class, row.table
            before = found.get(key, PinningClass(*key, blocks=0, sole_blocker=0, freeable=0))
            found[key] = replace(
                before,
                blocks=before.blocks + row.blocks,
                sole_blocker=before.sole_blocker + row.sole_blocker,
                freeable=before.freeable + (row.freeable or 0),
            )
    return found


def most_freeable(summary: TrialSummary) -> PinningClass | None:
    """The class without which most blocks still plugged would be free; None if no class frees any."""
    found = pinning_classes(summary, summary.blocks_snapshot).values()
    classes = [one for one in found if not one.table and one.freeable]
    return max(classes, key=lambda one: one.freeable) if classes else None


def pinning_table(arms: Sequence[ArmView]) -> PinningTable | None:
    """The table for the trial that stands for each arm; None where no arm has a snapshot after an unplug."""
    results = [arm.shown.summary.after_unplug for arm in arms]
    if not any(results):
        return None
    held = [pinning_classes(arm.shown.summary, arm.shown.summary.blocks_snapshot) for arm in arms]
    classes = list(_class_rows(held))
    bodies = (
        tuple(_total(label, "total", of, results) for label, of in _TOTALS),
        tuple(row for row in classes if row.css != "quiet"),
        tuple(row for row in classes if row.css == "quiet"),
        tuple(_total(label, "total", of, results) for label, of in _REST),
    )
    heads = tuple(_head(arm, result) for arm, result in zip(arms, results, strict=True))
    return PinningTable(heads, tuple(body for body in bodies if body))


def _head(arm: ArmView, result: SnapshotResult | None) -> PinningArm:
    summary = arm.shown.summary
    name = clean(arm.name, 60)
    if result is None:
        why = summary.gaps.get("blocks_plugged_after", "no snapshot after an unplug")
        return PinningArm(name, arm.index, "", "", clean(why, 200))
    trial = f"{clean(summary.trial, 40)}, " if len(arm.trials) > 1 else ""
    blocks = f", blocks of {size(result.block_bytes)}" if result.block_bytes else ""
    note = f"{trial}at {clean(result.snapshot, 40)}{blocks}"
    return PinningArm(name, arm.index, note, _sentence(summary, result), "")


def _sentence(summary: TrialSummary, result: SnapshotResult) -> str:
    best, pinned = most_freeable(summary), result.blocks_pinned
    if pinned is None:
        return ""
    if best:
        return (
            f"Without {class_words(best.frame_class)}, {count(best.freeable)} of {count(pinned)} pinned "
            "blocks would be free; no other class frees more."
        )
    if pinned and summary.blame:
        return f"No single class frees any of {count(pinned)} pinned blocks."
    return "" if pinned else "No class pins a block."


def _class_rows(held: Sequence[dict[tuple[str, str], PinningClass]]) -> Iterator[PinningRow]:
    """Classes, those that pin blocks first, most blocks first; page tables with their kinds below."""
    keys = dict.fromkeys(key for found in held for key in found)

    def most(key: tuple[str, str]) -> int:
        return max(found[key].blocks for found in held if key in found)

    classes = sorted((key for key in keys if not key[1]), key=lambda key: (key[0] not in _PIN, -most(key)))
    kinds = sorted((key for key in keys if key[1]), key=lambda key: -most(key))
    for key in classes:
        css = "holds" if key[0] in _PIN else "quiet"
        yield PinningRow(class_words(key[0]), css, tuple(_cell(found.get(key)) for found in held))
        if key[0] == _PAGE_TABLE:
            for kind in kinds:
                cells = tuple(_cell(found.get(kind)) for found in held)
                yield PinningRow(clean(kind[1], 40), "kind", cells)


def _cell(one: PinningClass | None) -> PinningCell:
    if one is None:
        return PinningCell()
    return PinningCell(count(one.blocks), count(one.sole_blocker) if one.pins else "")


def _total(
    label: str, css: str, of: Callable[[SnapshotResult], int | None], results: Sequence[SnapshotResult | None]
) -> PinningRow:
    counts = [of(one) if one else None for one in results]
    return PinningRow(label, css, tuple(PinningCell("" if n is None else count(n)) for n in counts))
